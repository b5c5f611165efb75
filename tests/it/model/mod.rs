//! Random schedules against a simple model: whatever happens to the store and the connections, in whatever order,
//! no position is resumed wrongly, nothing acknowledged is lost without a word, nothing is shown twice
//! unannounced, and nothing out of order.
//!
//! Walk: a seed makes a [`schedule`], one step at a time; the [`world`] (two gateways, a real Redis behind relays, a
//! replica to promote) takes each step and waits for what must follow from it; the bookkeeper of the harness and
//! the [`store`] model, which knows of each position whether anything that it needs may be gone, judge every frame.
//!
//! A failure names its seed: `MODEL_SEED=… cargo test --test it model` runs it again; `MODEL_RUNS` and
//! `MODEL_STEPS` make it longer. Steps wait for their effects, so that a seed nearly always fails in the same place.
#![expect(
    clippy::print_stdout,
    reason = "the seed and the steps are what a failure is understood by"
)]

use schedule::Schedule;
use world::World;

mod device;
mod schedule;
mod store;
mod world;

/// Steps of one schedule.
const STEPS: usize = 60;
/// Schedules of a run.
const RUNS: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value}")))
}

async fn run(seed: u64, steps: usize) {
    println!("MODEL_SEED={seed} MODEL_STEPS={steps}");
    let mut schedule = Schedule::new(seed);
    let mut world = World::new(schedule.files()).await;
    for number in 0..steps {
        let step = schedule.next(&world.view());
        println!("{number:>4} {step:?}");
        world.take(step).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_of_faults_breaks_a_promise() {
    let steps = variable("MODEL_STEPS").map_or(STEPS, |steps| steps.try_into().unwrap());
    match variable("MODEL_SEED") {
        Some(seed) => run(seed, steps).await,
        None => {
            for _ in 0..variable("MODEL_RUNS").unwrap_or(RUNS) {
                run(fastrand::u64(..), steps).await;
            }
        }
    }
}
