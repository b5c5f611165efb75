//! Backends whose exchanges fail: who notices, what becomes of the requests, and who is not to blame.

use super::clinic::{Clinic, Mood, Ward};
use super::*;
use crate::settings::{BreakerSettings, HealthSettings, ProbeKind, Settings, WhenExceeded};

#[tokio::test]
async fn exchanges_alone_eject_and_the_share_holds() {
    let wards = [Ward::start().await, Ward::start().await, Ward::start().await];
    let passive = |s: &mut Settings| s.health.passive = true;
    let clinic = Clinic::start(&wards.each_ref(), passive).await;
    wards[0].asked(Mood::Resets);
    // The failures are the clients'; after the fifth in a row there are no more.
    let statuses = clinic.posts(60).await;
    assert_eq!(statuses, BTreeMap::from([(200, 55), (502, 5)]));
    assert_eq!(clinic.backend(0).health.state, "ejected");
    assert_eq!(clinic.sum("proxy_backend_ejections_total"), 1);
    assert_eq!(wards[0].probes() + wards[1].probes(), 0);
    // Of three, half is one. With the second, nobody counts as ejected.
    wards[1].asked(Mood::Resets);
    clinic.posts(30).await;
    assert_eq!(clinic.backend(1).health.state, "ejected");
    let before = wards[0].requests();
    clinic.posts(9).await;
    assert!(wards[0].requests() > before, "a panic uses all");
}

#[tokio::test]
async fn beyond_the_share_a_region_panics_or_fails() {
    for (when, status) in [(WhenExceeded::Panic, 502), (WhenExceeded::Fail, 503)] {
        let wards = [Ward::start().await, Ward::start().await];
        for ward in &wards {
            ward.asked(Mood::Resets);
        }
        let clinic = Clinic::start(&wards.each_ref(), |s| {
            s.health.passive = true;
            s.health.when_exceeded = when;
        })
        .await;
        clinic.posts(10).await;
        assert_eq!(clinic.gateway.shared.table().regions[0].backends.usable().well, 0);
        let before = wards[0].requests() + wards[1].requests();
        assert_eq!(clinic.posts(4).await, BTreeMap::from([(status, 4)]));
        let asked = wards[0].requests() + wards[1].requests() - before;
        assert_eq!(asked, if status == 502 { 4 } else { 0 }, "{when:?}");
    }
}

#[tokio::test]
async fn probes_and_exchanges_each_have_their_say() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let clinic = Clinic::start(&[&ill, &well], |s| {
        s.health.active = ProbeKind::Http;
        s.health.passive = true;
    })
    .await;
    clinic.state(0, "up").await;
    // Its probes go well and its exchanges do not.
    ill.asked(Mood::Resets);
    assert_eq!(clinic.posts(40).await.get(&502), Some(&5));
    assert_eq!(clinic.backend(0).health.state, "ejected");
    ill.probed(Mood::Answers(500));
    clinic.state(0, "down").await;
    let marks: Vec<_> = clinic.backend(0).health.marks.iter().map(|mark| mark.mark).collect();
    assert_eq!(marks, ["down", "ejected"]);
}

#[tokio::test]
async fn a_breaker_answers_for_a_backend_and_lets_trials_find_out() {
    let ill = Ward::start().await;
    let clinic = Clinic::start(&[&ill], |s| {
        s.breaker = BreakerSettings {
            enabled: true,
            consecutive: 3,
            open: Duration::from_secs(1),
            ..BreakerSettings::default()
        };
    })
    .await;
    ill.asked(Mood::Resets);
    let statuses = clinic.posts(6).await;
    assert_eq!(statuses.get(&502), Some(&3), "{statuses:?}");
    assert_eq!(ill.requests(), 3);
    clinic.state(0, "half-open").await;
    ill.asked(Mood::Answers(200));
    assert_eq!(clinic.posts(5).await, BTreeMap::from([(200, 5)]));
    assert_eq!(clinic.backend(0).health.state, "up");
    assert_eq!(clinic.sum("proxy_breaker_opened_total"), 1);
}

#[tokio::test]
async fn clients_that_misbehave_or_leave_are_nobodys_fault() {
    let ward = Ward::start().await;
    ward.asked(Mood::Silent);
    let clinic = Clinic::start(&[&ward], |s| {
        s.health.passive = true;
        s.breaker.enabled = true;
        (s.health.consecutive, s.breaker.consecutive) = (1, 1);
    })
    .await;
    for _ in 0..3 {
        let mut client = clinic.gateway.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.say(format!("{head}xyz\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 400 "));
    }
    for _ in 0..3 {
        let before = ward.requests();
        let mut client = clinic.gateway.connect().await;
        client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi").await;
        let asked = async {
            while ward.requests() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within("the backend to be asked", asked).await;
        // In the middle of its body.
        drop(client);
    }
    clinic.gateway.idle().await;
    assert_eq!(clinic.backend(0).health.state, "up");
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_ends_what_is_turned_off() {
    let (ill, well) = (Ward::start().await, Ward::start().await);
    let mut settings = Settings::default();
    let clinic = Clinic::start(&[&ill, &well], |s| {
        s.health.active = ProbeKind::Http;
        settings = s.clone();
    })
    .await;
    ill.probed(Mood::Answers(500));
    clinic.state(0, "down").await;
    let regions = |urls: &[String]| {
        let backends = urls.iter().map(BackendSettings::primary).collect();
        let region = RegionSettings { backends, ..RegionSettings::default() };
        BTreeMap::from([(RegionName::literal("1"), region)])
    };
    let shared = &clinic.gateway.shared;
    let new = Ward::start().await;
    shared.replace(&settings, &regions(&[ill.url(), new.url()]), None).unwrap();
    assert_eq!(clinic.backend(0).health.state, "down");
    assert_eq!(clinic.backend(1).health.state, "unknown");
    clinic.state(1, "up").await;
    // The one that left is probed no more; one more may have been on its way.
    let (at_most, seen) = (well.probes() + 1, new.probes());
    let more = async {
        while new.probes() < seen + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("more probes", more).await;
    assert!(well.probes() <= at_most);
    settings.health = HealthSettings::default();
    shared.replace(&settings, &regions(&[ill.url(), new.url()]), None).unwrap();
    assert_eq!(clinic.backend(0).health.state, "up", "nobody says that it is down any more");
}
