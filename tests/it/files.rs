//! Folders that the gateway serves: ranges, conditions, precompressed files, pages of applications, and what is hidden.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::gateway::{Gateway, add_backend};
use crate::harness::http::{Answer, exchange, get};

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("index.html", "<h1>home</h1>");
    write("app.js", "0123456789");
    write("app.js.gz", "gzipped");
    write("deep/index.html", "deep");
    write("deep/a b.txt", "spaced");
    write(".env", "secret");
    write(".git/config", "secret");
    write(".well-known/security.txt", "contact");
    folder
}

async fn serving(folder: &Path, spa: bool) -> (Gateway, Backend) {
    serving_on("/assets/", folder, spa).await
}

async fn serving_on(path: &str, folder: &Path, spa: bool) -> (Gateway, Backend) {
    let backend = Backend::saying("backend").await;
    let gateway = Gateway::start(|settings| {
        add_backend(settings, "1", backend.address);
        let mount = meridian::settings::StaticSettings {
            path: path.to_owned(),
            folder: folder.to_owned(),
            spa,
            cache_control: "max-age=60".to_owned(),
            ..Default::default()
        };
        settings.mounts.insert("assets".to_owned(), mount);
    })
    .await;
    (gateway, backend)
}

async fn ask(gateway: &Gateway, path: &str, headers: &str) -> Answer {
    get(gateway.proxy(), path, headers).await
}

#[tokio::test]
async fn files_are_served_without_a_region() {
    let folder = folder();
    let (gateway, _backend) = serving(folder.path(), false).await;
    let answer = ask(&gateway, "/assets/app.js", "").await;
    assert_eq!((answer.status, answer.text()), (200, "0123456789"));
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("max-age=60"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(ask(&gateway, "/assets/", "").await.text(), "<h1>home</h1>");
    assert_eq!(ask(&gateway, "/assets/deep/", "").await.text(), "deep");
    assert_eq!(ask(&gateway, "/assets/deep/a%20b.txt", "").await.text(), "spaced");
    assert_eq!(ask(&gateway, "/assets/.well-known/security.txt", "").await.text(), "contact");
    let moved = ask(&gateway, "/assets/deep?x=1", "").await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("/assets/deep/?x=1")));
    let moved = ask(&gateway, "/assets?x=1", "").await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("/assets/?x=1")));
    let head = exchange(gateway.proxy(), "HEAD /assets/app.js HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    assert_eq!(ask(&gateway, "/assetsx", "x-region: 1\r\n").await.text(), "backend");
}

#[tokio::test]
async fn no_redirect_leads_to_another_host() {
    let folder = folder();
    let (gateway, _backend) = serving_on("/", folder.path(), false).await;
    assert_eq!(ask(&gateway, "/deep", "").await.header("location"), Some("/deep/"));
    let doubled = ask(&gateway, "//deep", "").await;
    assert_eq!((doubled.status, doubled.header("location")), (404, None));
}

#[tokio::test]
async fn parts_and_conditions() {
    let folder = folder();
    let (gateway, _backend) = serving(folder.path(), false).await;
    let whole = ask(&gateway, "/assets/app.js", "").await;
    let tag = whole.header("etag").unwrap().to_owned();
    let date = whole.header("last-modified").unwrap().to_owned();
    let of = async |headers: String| {
        let answer = ask(&gateway, "/assets/app.js", &headers).await;
        (answer.status, answer.text().to_owned())
    };
    let is = |status: u16, text: &str| (status, text.to_owned());
    assert_eq!(of("Range: bytes=2-4\r\n".to_owned()).await, is(206, "234"));
    assert_eq!(of("Range: bytes=-3\r\n".to_owned()).await, is(206, "789"));
    let beyond = ask(&gateway, "/assets/app.js", "Range: bytes=99-\r\n").await;
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "range_not_satisfiable"));
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
    assert_eq!(of("Range: bytes=0-6,4-9\r\n".to_owned()).await, is(200, "0123456789"));
    assert_eq!(of("Range: lines=0-1\r\n".to_owned()).await, is(200, "0123456789"));
    let head = "HEAD /assets/app.js HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n";
    let head = exchange(gateway.proxy(), head).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "GET alone");
    assert_eq!(of(format!("If-None-Match: {tag}\r\n")).await, is(304, ""));
    assert_eq!(of(format!("If-Modified-Since: {date}\r\n")).await, is(304, ""));
    let same = ask(&gateway, "/assets/app.js", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!(same.header("vary"), whole.header("vary"), "as with the file");
    let changed = ask(&gateway, "/assets/app.js", "If-Match: \"other\"\r\n").await;
    assert_eq!((changed.status, changed.code().as_str()), (412, "precondition_failed"));
    assert_eq!(of(format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")).await, is(206, "0"));
    let other = "Range: bytes=0-0\r\nIf-Range: \"other\"\r\n";
    assert_eq!(
        of(other.to_owned()).await,
        is(200, "0123456789"),
        "a part of another edition is none"
    );
}

#[tokio::test]
async fn several_parts_come_in_one_answer() {
    let folder = folder();
    fs::write(folder.path().join("empty.txt"), "").unwrap();
    let (gateway, _backend) = serving(folder.path(), false).await;
    let whole = ask(&gateway, "/assets/app.js", "").await;
    let answer = ask(&gateway, "/assets/app.js", "Range: bytes=0-1,-1,4-5\r\n").await;
    assert_eq!((answer.status, answer.header("etag")), (206, whole.header("etag")));
    assert_eq!(answer.header("content-range"), None, "each part has its own");
    let kind = answer.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, text: &str| {
        let kind = "Content-Type: text/javascript; charset=utf-8";
        format!("\r\n--{boundary}\r\n{kind}\r\nContent-Range: bytes {range}/10\r\n\r\n{text}")
    };
    let parts = [part("0-1", "01"), part("9-9", "9"), part("4-5", "45")].concat();
    assert_eq!(answer.text(), format!("{parts}\r\n--{boundary}--\r\n"));
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
    let empty = ask(&gateway, "/assets/empty.txt", "Range: bytes=0-0\r\n").await;
    assert_eq!((empty.status, empty.text()), (200, ""));
}

#[tokio::test]
async fn a_precompressed_file_is_for_those_who_can_read_it() {
    let folder = folder();
    let (gateway, _backend) = serving(folder.path(), false).await;
    let coded = ask(&gateway, "/assets/app.js", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((coded.text(), coded.header("content-encoding")), ("gzipped", Some("gzip")));
    assert_eq!(coded.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(coded.header("vary"), Some("accept-encoding"));
    let plain = ask(&gateway, "/assets/app.js", "Accept-Encoding: gzip;q=0\r\n").await;
    assert_eq!((plain.text(), plain.header("content-encoding")), ("0123456789", None));
}

#[tokio::test]
async fn what_is_hidden_or_elsewhere_is_not_there() {
    let (folder, outside) = (folder(), TempDir::new().unwrap());
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("app.js"), folder.path().join("inner.js"))
        .unwrap();
    let (gateway, backend) = serving(folder.path(), false).await;
    for path in [
        "/assets/.env",
        "/assets/%2eenv",
        "/assets/.git/config",
        "/assets/link/secret.txt",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e/Cargo.toml",
        "/assets/..%2fCargo.toml",
        "/assets/..%5cCargo.toml",
        "/assets/app.js%00.html",
        "/assets/nothing",
        "/assets/app.js/x",
    ] {
        let answer = ask(&gateway, path, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    assert_eq!(ask(&gateway, "/assets/inner.js", "").await.text(), "0123456789");
    let post = "POST /assets/app.js HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    let answer = exchange(gateway.proxy(), post).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(backend.connections(), 0, "none of it is a backend's business");
}

#[tokio::test]
async fn a_page_of_an_application_is_its_index() {
    let folder = folder();
    let (gateway, _backend) = serving(folder.path(), true).await;
    let page = ask(&gateway, "/assets/users/7", "Accept: text/html,*/*\r\n").await;
    assert_eq!((page.status, page.text()), (200, "<h1>home</h1>"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    for path in ["/assets/", "/assets/index.html"] {
        let page = ask(&gateway, path, "").await;
        assert_eq!(page.header("cache-control"), Some("no-cache"), "{path}");
    }
    let asset = ask(&gateway, "/assets/app.js", "").await;
    assert_eq!(asset.header("cache-control"), Some("max-age=60"));
    for accept in ["", "Accept: */*\r\n", "Accept: image/png, text/*;q=0.5\r\n"] {
        assert_eq!(ask(&gateway, "/assets/users/7", accept).await.status, 200, "{accept}");
    }
    assert_eq!(ask(&gateway, "/assets/missing.js", "Accept: text/html\r\n").await.status, 404);
    assert_eq!(ask(&gateway, "/assets/users/7", "Accept: application/json\r\n").await.status, 404);
}
