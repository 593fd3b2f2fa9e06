//! What goes wrong, for how long, and that it is mended in the end.

use std::time::Duration;

use ottla::mock::Api;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::world::{GROUP, TOPIC, World};

/// Codes that brokers give for a while, by what was asked.
const CODES: &[(Api, &[i16])] = &[
    (Api::Produce, &[3, 6, 7, 19, 20, 56]),
    (Api::Fetch, &[70, 71, 56]),
    (Api::Metadata, &[5]),
    (Api::ListOffsets, &[3, 6, 78]),
    (Api::InitProducerId, &[14, 15]),
    (Api::FindCoordinator, &[15]),
    (Api::OffsetCommit, &[7, 14, 15, 16]),
    (Api::OffsetFetch, &[14, 15, 16, 88]),
    (Api::ConsumerGroupHeartbeat, &[14, 15, 16, 25, 110]),
];

/// Breaks things until all producers are done, and mends everything.
pub(crate) async fn inject(world: &World, rng: &mut StdRng) {
    let mock = &world.mock;
    let least = rng.random_range(0..20);
    mock.network().delay(
        Duration::from_millis(least),
        Duration::from_millis(least + rng.random_range(0..60)),
    );
    let busy = rng.random_range(200..8_000);
    let mut rounds = 0;
    while world.notes.borrow().producers_done < world.producers && rounds < 300 {
        rounds += 1;
        sleep(Duration::from_millis(rng.random_range(10..busy))).await;
        one(world, rng).await;
    }
    mock.network().heal();
    for broker in 1..=world.brokers {
        mock.resume(broker);
    }
}

async fn one(world: &World, rng: &mut StdRng) {
    let mock = &world.mock;
    let broker = rng.random_range(1..=world.brokers);
    let partition = rng.random_range(0..world.partitions);
    let pause = Duration::from_millis(rng.random_range(1..10_000));
    let kind = rng.random_range(0..12);
    world.notes.borrow_mut().faults += 1;
    world.tell(format_args!(
        "fault {kind} broker {broker} partition {partition} for {pause:?}"
    ));
    match kind {
        0 => {
            mock.kill(broker);
            sleep(pause).await;
            mock.restart(broker).await.expect("it opens no sockets");
        }
        1 => mock.restart(broker).await.expect("it opens no sockets"),
        2 => {
            mock.pause(broker);
            sleep(pause).await;
            mock.resume(broker);
        }
        3 | 4 => mock
            .move_leader(TOPIC, partition, broker)
            .expect("it is alive"),
        5 => mock.move_coordinator(GROUP, broker).expect("it is alive"),
        6 => {
            let part = mock.network().broker(broker);
            match rng.random_range(0..3) {
                0 => part.cut(),
                1 => part.cut_answers(),
                _ => part.cut_requests(),
            }
            sleep(pause).await;
            if rng.random() {
                // What was held back is lost, as when the other end is gone.
                part.reset();
            }
            part.heal();
        }
        7 => mock.network().broker(broker).reset(),
        8 => {
            let rule = mock.on_any().broker(broker).times(rng.random_range(1..4));
            let _ = match rng.random_range(0..3) {
                0 => rule.drop_connection(),
                1 => rule.delay(pause),
                _ => rule.garbage(vec![rng.random(), 0xff, 3, 200, 1, 2, 3, 4]),
            };
        }
        9 => {
            let times = rng.random_range(1..4);
            let _ = mock.on(Api::Produce).times(times).apply_then_drop();
        }
        10 => {
            let apis = [
                Api::OffsetCommit,
                Api::ConsumerGroupHeartbeat,
                Api::Fetch,
                Api::InitProducerId,
            ];
            let api = apis[rng.random_range(0..apis.len())];
            let _ = mock.on(api).times(1).apply_then_drop();
        }
        _ => {
            let (api, codes) = CODES[rng.random_range(0..CODES.len())];
            let code = codes[rng.random_range(0..codes.len())];
            world.tell(format_args!("{api:?} fails with {code}"));
            let _ = mock.on(api).times(rng.random_range(1..4)).fail(code);
        }
    }
}
