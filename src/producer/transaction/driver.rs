//! Does what the machine of a producer's transactions asks for.

use std::pin::Pin;
use std::sync::Arc;

use super::machine::{Answer, Effect, Protocol, Request};
use super::requests;
use super::state::Transactions;
use crate::producer::shared::Shared;

/// The `transaction.version` from which on the second protocol is used (KIP-890).
const SECOND_PROTOCOL: i16 = 2;

type Answered = Pin<Box<dyn Future<Output = (Request, Answer)> + Send>>;
type Waiting = Pin<Box<dyn Future<Output = Waited> + Send>>;

/// What was waited for.
enum Waited {
    Flushed,
    Drained,
}

/// Runs until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>, transactions: Arc<Transactions>) {
    let mut driver = Driver {
        shared,
        transactions,
        asking: None,
        waiting: None,
    };
    loop {
        driver.turn();
        driver.wait().await;
    }
}

struct Driver {
    shared: Arc<Shared>,
    transactions: Arc<Transactions>,
    asking: Option<Answered>,
    waiting: Option<Waiting>,
}

impl Driver {
    fn turn(&mut self) {
        loop {
            let mut machine = self.transactions.machine();
            machine.offer(offered(&self.shared));
            let effect = machine.poll();
            let identity = machine.identity();
            drop(machine);
            self.shared.note_intake();
            if self.shared.identity().give(identity) {
                self.shared.wake_senders();
            }
            match effect {
                Some(effect) => self.carry_out(effect),
                None => break,
            }
        }
        self.transactions.moved();
    }

    fn carry_out(&mut self, effect: Effect) {
        let shared = Arc::clone(&self.shared);
        let transactions = Arc::clone(&self.transactions);
        match effect {
            Effect::Send(request) => {
                self.asking = Some(Box::pin(async move {
                    let name = transactions.machine().name().to_owned();
                    let is_over = || transactions.machine().is_aborting();
                    let (cluster, config) = (&shared.cluster, &shared.config);
                    let answer = requests::ask(cluster, config, &name, &request, &is_over).await;
                    (request, answer)
                }));
            }
            Effect::Flush => {
                self.waiting = Some(Box::pin(async move {
                    shared.flush().await;
                    Waited::Flushed
                }));
            }
            Effect::Drain => {
                self.waiting = Some(Box::pin(async move {
                    transactions.drained().await;
                    Waited::Drained
                }));
            }
            Effect::DropUnsent(error) => {
                shared.drop_records(false, &error);
            }
            Effect::DropAll(error) => {
                if crate::planted("aborted-records-stay") {
                    return transactions.machine().dropped(false);
                }
                let maybe_written = shared.drop_records(true, &error).maybe_written > 0;
                transactions.machine().dropped(maybe_written);
            }
            Effect::Told(id, result) => transactions.tell(id, result),
            Effect::Fail(error) => {
                shared.identity().fail(error);
                shared.control.notify_one();
            }
        }
    }

    async fn wait(&mut self) {
        let asking = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        let waiting = async {
            match &mut self.waiting {
                Some(waiting) => waiting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (request, answer) = asking => {
                self.asking = None;
                self.transactions.machine().answered(request, answer);
                // Partitions may have been added.
                self.shared.wake_senders();
            }
            waited = waiting => {
                self.waiting = None;
                let mut machine = self.transactions.machine();
                match waited {
                    Waited::Flushed => machine.flushed(),
                    Waited::Drained => machine.drained(),
                }
            }
            () = self.transactions.work.notified() => {}
        }
    }
}

/// What the cluster has finalized, as connections were told.
fn offered(shared: &Shared) -> Protocol {
    match shared.cluster.features().transaction_version {
        SECOND_PROTOCOL.. => Protocol::V2,
        _ => Protocol::V1,
    }
}
