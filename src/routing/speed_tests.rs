use super::super::fixtures::catalogue;
use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn sample<'a>(tier: &'a str, place: &'a str, at: Duration) -> Sample<'a> {
    Sample { tier, place, weight: 1.0, at }
}

fn tier(name: &str, place: &str) -> CatalogueTier {
    CatalogueTier { name: name.to_owned(), place: place.to_owned(), ..catalogue(&[0.4]).tiers()[0].clone() }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn what_is_measured_replaces_what_is_assumed() {
    let mut speeds = Speeds::default();
    let (a, b) = (tier("a", ""), tier("b", ""));
    assert_eq!(speeds.at(ms(0)).of(&a), Speed::ASSUMED);
    speeds.first_token(sample("a", "", ms(0)), ms(100));
    speeds.generated(sample("a", "", ms(0)), ms(1000), 101);
    let measured = Speed { seconds_to_first_token: 0.1, seconds_per_token: 0.01 };
    assert_eq!(speeds.at(ms(0)).of(&a), measured);
    assert_eq!(speeds.at(ms(0)).of(&b), measured, "the same network in the same engine");
    assert!(near(measured.seconds(101.0), 1.1) && near(measured.seconds(0.0), 0.1));
    assert!(near(speeds.tokens_per_second("a").unwrap(), 100.0));
    assert_eq!(speeds.tokens_per_second("b"), None);
}

#[test]
fn short_generations_say_nothing_about_the_pace() {
    let mut speeds = Speeds::default();
    speeds.generated(sample("a", "", ms(0)), ms(100), 0);
    speeds.generated(sample("a", "", ms(0)), ms(100), 1);
    assert_eq!(speeds, Speeds::default());
}

#[test]
fn a_wait_is_that_of_all_tiers_of_the_place_and_the_queue_that_of_all() {
    let mut speeds = Speeds::default();
    speeds.first_token(sample("low", "", ms(0)), ms(10));
    speeds.first_token(sample("low", "", ms(0)), ms(4010));
    let wait = |speeds: &Speeds, place: &str| speeds.at(ms(0)).of(&tier("high", place)).seconds_to_first_token;
    assert!(near(wait(&speeds, ""), 2.01), "though nobody has asked for `high`");
    assert!(near(wait(&speeds, "http://other/v1"), 0.01), "another engine idles");
    speeds.queued(ms(7000), ms(0));
    assert!(near(wait(&speeds, ""), 9.01) && near(wait(&speeds, "http://other/v1"), 7.01));
}

#[test]
fn a_burst_is_forgotten_in_seconds() {
    let mut speeds = Speeds::default();
    speeds.first_token(sample("a", "", ms(0)), ms(10));
    for _ in 0..120 {
        speeds.queued(ms(5000), ms(1000));
        speeds.first_token(sample("a", "", ms(1000)), ms(1000));
    }
    let wait = |seconds: u64| speeds.at(ms(1000 + 1000 * seconds)).of(&tier("a", "")).seconds_to_first_token;
    assert!(wait(0) > 5.9 && near(wait(3), 0.01 + (wait(0) - 0.01) / 2.0));
    assert!(wait(30) < 0.02, "{}", wait(30));
    // The first requests after it say more than all of it.
    let mut after = speeds.clone();
    for _ in 0..4 {
        after.queued(ms(0), ms(6000));
        after.first_token(sample("a", "", ms(6000)), ms(10));
    }
    let wait = after.at(ms(6000)).of(&tier("a", "")).seconds_to_first_token;
    assert!(wait < wait_after(&speeds) / 4.0, "{wait}");
}

fn wait_after(speeds: &Speeds) -> f64 {
    speeds.at(ms(6000)).of(&tier("a", "")).seconds_to_first_token
}

#[test]
fn a_slow_moment_of_a_tier_fades_to_what_the_others_do() {
    let mut speeds = Speeds::default();
    speeds.generated(sample("a", "", ms(0)), ms(30_000), 101);
    for second in 1..=300 {
        speeds.generated(sample("b", "", ms(1000 * second)), ms(1000), 101);
    }
    let pace = |at| speeds.at(ms(at)).of(&tier("a", "")).seconds_per_token;
    assert!(pace(300_000) < 0.0104, "{}", pace(300_000));
    assert!(near(speeds.tokens_per_second("a").unwrap(), 100.0 / 30.0), "people are told what was measured");
}

#[test]
fn another_machine_stays_another_one_for_minutes() {
    let mut speeds = Speeds::default();
    let there = "http://gpu/v1";
    for _ in 0..9 {
        speeds.generated(sample("a", there, ms(0)), ms(100), 101);
        speeds.generated(sample("b", "", ms(0)), ms(10_000), 101);
    }
    let pace = |name, place, at| speeds.at(ms(at)).of(&tier(name, place)).seconds_per_token;
    assert!(near(pace("a", there, 0), 0.001) && near(pace("b", "", 0), 0.1));
    assert!(near(pace("c", there, 0), 0.001), "a tier that was never measured runs like its place");
    assert!(pace("a", there, 60_000) < 0.02, "{}", pace("a", there, 60_000));
    assert!(pace("a", there, 7_200_000) > 0.04, "{}", pace("a", there, 7_200_000));
}

#[test]
fn the_choices_of_one_request_count_as_one() {
    let (mut one, mut four) = (Speeds::default(), Speeds::default());
    for speeds in [&mut one, &mut four] {
        speeds.first_token(sample("a", "", ms(0)), ms(100));
        speeds.generated(sample("a", "", ms(0)), ms(1000), 101);
    }
    one.first_token(sample("a", "", ms(0)), ms(200));
    one.generated(sample("a", "", ms(0)), ms(3000), 101);
    for _ in 0..4 {
        let quarter = Sample { weight: 0.25, ..sample("a", "", ms(0)) };
        four.first_token(quarter, ms(200));
        four.generated(quarter, ms(3000), 101);
    }
    let (one, four) = (one.at(ms(0)).of(&tier("a", "")), four.at(ms(0)).of(&tier("a", "")));
    assert!(near(one.seconds_to_first_token, four.seconds_to_first_token), "{one:?} {four:?}");
    assert!(near(one.seconds_per_token, four.seconds_per_token), "{one:?} {four:?}");
}
