//! A scheduler that grants store calls one at a time, and the store that asks it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::domain::id::BackupId;
use crate::domain::key::ObjectKey;
use crate::repo::layout::{self, IntentState};
use crate::store::{ObjectMeta, ObjectStore, StoreError};

/// A small reproducible generator (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }
}

/// All objects, shared by all processes.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    objects: Arc<Mutex<BTreeMap<ObjectKey, Bytes>>>,
}

impl World {
    /// What a disk does: the object keeps its name and size and loses its content.
    pub(super) fn damage(&self, key: &ObjectKey) {
        if let Some(bytes) = self.objects.lock().unwrap().get_mut(key) {
            *bytes = bytes.iter().map(|byte| !byte).collect::<Vec<u8>>().into();
        }
    }

    /// A store whose calls need no turn.
    pub(super) fn open(&self) -> Arc<SimStore> {
        Arc::new(SimStore { world: self.clone(), gate: None, hidden: Hidden::default() })
    }
}

#[derive(Debug, Default)]
struct Turn {
    granted: bool,
    waker: Option<Waker>,
}

/// The calls of one process that wait for a turn.
#[derive(Debug, Default)]
struct Gate {
    turns: Mutex<Vec<Arc<Mutex<Turn>>>>,
}

impl Gate {
    async fn turn(&self) {
        let turn = Arc::new(Mutex::new(Turn::default()));
        self.turns.lock().unwrap().push(turn.clone());
        std::future::poll_fn(|context| {
            let mut turn = turn.lock().unwrap();
            if turn.granted {
                return Poll::Ready(());
            }
            turn.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets one of the waiting calls through.
    fn grant(&self, dice: &mut Dice) -> bool {
        let mut turns = self.turns.lock().unwrap();
        // A call whose future was dropped waits no more.
        turns.retain(|turn| Arc::strong_count(turn) > 1);
        if turns.is_empty() {
            return false;
        }
        let at = dice.pick(turns.len());
        let turn = turns.swap_remove(at);
        let mut turn = turn.lock().unwrap();
        turn.granted = true;
        if let Some(waker) = turn.waker.take() {
            waker.wake();
        }
        true
    }
}

/// What a mutant does not see.
#[derive(Debug, Clone, Copy, Default)]
struct Hidden {
    broken: bool,
    condemned: bool,
}

/// A store whose every call, and every page of a listing, waits for a turn.
#[derive(Debug)]
pub(super) struct SimStore {
    world: World,
    gate: Option<Arc<Gate>>,
    hidden: Hidden,
}

/// Objects a page of a listing shows: few, so that a listing is never one moment.
const PAGE: usize = 3;

impl SimStore {
    async fn turn(&self) {
        if let Some(gate) = &self.gate {
            gate.turn().await;
        }
    }

    fn page(&self, prefix: &str, after: Option<&ObjectKey>) -> Vec<ObjectMeta> {
        let objects = self.world.objects.lock().unwrap();
        objects
            .iter()
            .filter(|(key, _)| {
                key.as_str().starts_with(prefix) && after.is_none_or(|last| *key > last)
            })
            .take(PAGE)
            .map(|(key, bytes)| ObjectMeta { key: key.clone(), size_bytes: bytes.len() as u64 })
            .collect()
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        self.turn().await;
        // As on a store without conditional puts: the last one wins, silently.
        self.world.objects.lock().unwrap().insert(key.clone(), bytes);
        Ok(())
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        self.turn().await;
        let end = layout::intent_end_of(key);
        if self.hidden.broken && matches!(end, Some((_, IntentState::Broken))) {
            return Err(StoreError::NotFound(key.clone()));
        }
        let objects = self.world.objects.lock().unwrap();
        objects.get(key).cloned().ok_or_else(|| StoreError::NotFound(key.clone()))
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let hide = self.hidden.condemned && prefix == layout::CONDEMNED;
        let prefix = prefix.to_owned();
        let pages = stream::unfold((None, hide), move |(after, ended)| {
            let prefix = prefix.clone();
            async move {
                if ended {
                    return None;
                }
                self.turn().await;
                let page = self.page(&prefix, after.as_ref());
                let last = page.last().map(|object| object.key.clone());
                let ended = page.len() < PAGE;
                Some((stream::iter(page.into_iter().map(Ok)), (last.or(after), ended)))
            }
        });
        pages.flatten().boxed()
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.turn().await;
        self.world.objects.lock().unwrap().remove(key);
        Ok(())
    }

    fn concurrency(&self) -> usize {
        3
    }

    fn address(&self) -> String {
        "simulated".to_owned()
    }
}

struct Process {
    future: Pin<Box<dyn Future<Output = ()>>>,
    gate: Arc<Gate>,
    /// Stays where it is until the others have moved this often.
    frozen: u64,
}

/// How often what happens, in a thousand. Each history draws its own: one that crashes all the time finds
/// other faults than one that never does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    crashes: u64,
    freezes: u64,
    late_declarations: u64,
}

impl Weather {
    /// Nobody crashes, everybody is paused, and judges are always late.
    pub(super) const ROUGH: Self = Self { crashes: 0, freezes: 60, late_declarations: 20 };

    fn drawn(dice: &mut Dice) -> Self {
        Self {
            crashes: [0, 2, 8][dice.pick(3)],
            freezes: [5, 20, 60][dice.pick(3)],
            late_declarations: [0, 2, 20][dice.pick(3)],
        }
    }
}

/// Draws who goes on, who crashes, who freezes and whose intent is declared broken.
pub(super) struct Scheduler {
    pub(super) world: World,
    dice: Dice,
    weather: Weather,
    processes: Vec<Process>,
    gates: Vec<Arc<Gate>>,
    pub(super) hide_broken: bool,
    pub(super) hide_condemned: bool,
}

impl Scheduler {
    pub(super) fn new(seed: u64, weather: Option<Weather>) -> Self {
        let mut dice = Dice::new(seed);
        let drawn = Weather::drawn(&mut dice);
        let weather = weather.unwrap_or(drawn);
        Self {
            world: World::default(),
            dice,
            weather,
            processes: Vec::new(),
            gates: Vec::new(),
            hide_broken: false,
            hide_condemned: false,
        }
    }

    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.dice.below(bound)
    }

    /// The store of the process that is spawned next; mutants concern backups only.
    pub(super) fn store(&mut self, of_backup: bool) -> Arc<SimStore> {
        let gate = Arc::new(Gate::default());
        self.gates.push(gate.clone());
        let hidden = Hidden {
            broken: of_backup && self.hide_broken,
            condemned: of_backup && self.hide_condemned,
        };
        Arc::new(SimStore { world: self.world.clone(), gate: Some(gate), hidden })
    }

    pub(super) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        let gate = self.gates.pop().expect("a store is drawn first");
        self.processes.push(Process { future: Box::pin(future), gate, frozen: 0 });
    }

    /// Until every process has ended or crashed.
    pub(super) fn run_to_end(&mut self) {
        for at in (0..self.processes.len()).rev() {
            self.poll(at);
        }
        let mut steps = 0_u32;
        while !self.processes.is_empty() {
            steps += 1;
            assert!(steps < 200_000, "a history must end");
            if self.dice.below(1000) < self.weather.late_declarations {
                self.declare_late();
            }
            let at = self.dice.pick(self.processes.len());
            let process = &mut self.processes[at];
            if process.frozen > 0 {
                process.frozen -= 1;
                continue;
            }
            let fate = self.dice.below(1000);
            if fate < self.weather.crashes {
                // The future is dropped where it stands: what it had in flight never happened.
                drop(self.processes.swap_remove(at));
            } else if fate < self.weather.crashes + self.weather.freezes {
                process.frozen = self.dice.below(120);
            } else {
                let granted = process.gate.grant(&mut self.dice);
                assert!(granted, "a live process waits for the store");
                self.poll(at);
            }
        }
    }

    fn poll(&mut self, at: usize) {
        let mut context = Context::from_waker(Waker::noop());
        if self.processes[at].future.as_mut().poll(&mut context).is_ready() {
            drop(self.processes.swap_remove(at));
        }
    }

    /// A judge that was paused for long after its look, declares, and crashes before it makes sure.
    fn declare_late(&mut self) {
        let mut objects = self.world.objects.lock().unwrap();
        let intents: Vec<BackupId> = objects
            .keys()
            .filter_map(|key| key.as_str().strip_prefix(layout::INTENTS)?.parse().ok())
            .collect();
        // The newest are the ones at work.
        let newest = 3.min(intents.len());
        if newest > 0 {
            let at = intents.len() - 1 - self.dice.pick(newest);
            objects.insert(layout::intent_end(&intents[at], IntentState::Broken), Bytes::new());
        }
    }
}
