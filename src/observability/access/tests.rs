//! Lines from the call to the file.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn settings(file: &Path) -> AccessSettings {
    AccessSettings { file: Some(file.to_owned()), ..AccessSettings::default() }
}

fn said(path: &str) -> Entry<'_> {
    Entry { method: "GET", path, status: 200, ..Entry::default() }
}

/// Waits until the file has this many lines.
fn lines(file: &Path, wanted: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= wanted {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "{wanted} wanted: {text}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn lines_of_all_threads_arrive_whole_and_in_the_order_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = AccessWriter::start(&mut Registry::default()).unwrap();
    let log = writer.log();
    log.set(&LogSettings::default(), &settings(&path)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..500 {
                    log.write(&said(&format!("/{thread}/{number}")));
                }
            });
        }
    });
    let found = lines(&path, 2_000);
    for thread in 0..4 {
        let mine = format!(" GET /{thread}/");
        let of_it: Vec<_> = found.iter().filter(|line| line.contains(&mine)).collect();
        for (number, line) in of_it.iter().enumerate() {
            assert!(line.ends_with(&format!("{mine}{number} 200 - 0ms")), "{line}");
        }
        assert_eq!(of_it.len(), 500);
    }
}

#[test]
fn what_waits_is_written_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = AccessWriter::start(&mut Registry::default()).unwrap();
    let log = writer.log();
    log.set(&LogSettings::default(), &settings(&path)).unwrap();
    for _ in 0..100 {
        log.write(&said("/last"));
    }
    drop(writer);
    assert_eq!(lines(&path, 0).len(), 100);
}

#[test]
fn a_change_of_the_settings_counts_from_the_next_line_on() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let writer = AccessWriter::start(&mut Registry::default()).unwrap();
    let log = writer.log();
    let on = LogSettings::default();
    log.write(&said("/before"));
    log.set(&on, &settings(&one)).unwrap();
    log.write(&said("/one"));
    lines(&one, 1);
    let json = AccessSettings { format: Some(AccessFormat::Json), ..settings(&two) };
    log.set(&on, &json).unwrap();
    log.write(&said("/two"));
    assert!(lines(&two, 1)[0].contains(r#""path":"/two""#));
    log.set(&LogSettings { access: false, ..on }, &json).unwrap();
    assert!(!log.is_on());
    log.write(&said("/after"));
    let missing = settings(Path::new("/nonexistent/access.log"));
    let refused = log.set(&LogSettings::default(), &missing).unwrap_err().to_string();
    assert!(refused.starts_with("access.file: /nonexistent/access.log: "), "{refused}");
    drop(writer);
    assert_eq!((lines(&one, 1).len(), lines(&two, 1).len()), (1, 1));
}

#[test]
fn a_file_that_is_gone_is_begun_anew_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let writer = AccessWriter::start(&mut Registry::default()).unwrap();
    let log = writer.log();
    log.set(&LogSettings::default(), &settings(&path)).unwrap();
    log.write(&said("/one"));
    lines(&path, 1);
    let aside = folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    log.reopen();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !path.exists() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    log.write(&said("/two"));
    assert!(lines(&path, 1)[0].contains("/two"));
    assert_eq!(lines(&aside, 1).len(), 1);
}

#[test]
fn what_nobody_takes_is_dropped_and_counted() {
    let log = AccessLog::kept(AccessFormat::Text);
    let path = format!("/{}", "x".repeat(8 * 1024));
    let fitting = MAX_WAITING / (8 * 1024) + 1;
    for _ in 0..fitting + 10 {
        log.write(&said(&path));
    }
    assert!((10..=20).contains(&log.0.dropped.get()), "{}", log.0.dropped.get());
    assert!(log.taken().len() < MAX_WAITING + 10 * 1024);
}

/// What a line costs the request that it is of; see the README.
#[test]
#[ignore = "a measurement: cargo test --release --lib what_a_line_costs -- --ignored --nocapture"]
fn what_a_line_costs() {
    let folder = tempfile::tempdir().unwrap();
    for format in [AccessFormat::Text, AccessFormat::Json, AccessFormat::Combined] {
        let writer = AccessWriter::start(&mut Registry::default()).unwrap();
        let log = writer.log();
        let path = folder.path().join(format!("{format:?}"));
        let access = AccessSettings { format: Some(format), ..settings(&path) };
        log.set(&LogSettings::default(), &access).unwrap();
        let entry = Entry {
            took: Duration::from_micros(812),
            region: Some("1"),
            served: Some("1"),
            backend: Some("127.0.0.1:4001"),
            attempts: 1,
            first_byte: Some(Duration::from_micros(604)),
            received: Some(0),
            sent: Some(1_234),
            end: Some(crate::observability::Ending::Complete),
            request_id: "0123456789abcdef0123456789abcdef",
            protocol: "HTTP/1.1",
            client: Some([192, 0, 2, 17].into()),
            ..said("/some/path/of/usual/length.html")
        };
        let (mut best, count) = (Duration::MAX, 5_000);
        for _ in 0..50 {
            let began = Instant::now();
            for _ in 0..count {
                log.write(&entry);
            }
            best = best.min(began.elapsed() / count);
            std::thread::park_timeout(Duration::from_millis(20));
        }
        println!("{format:?}: {best:?} a line, {} dropped", log.0.dropped.get());
    }
}
