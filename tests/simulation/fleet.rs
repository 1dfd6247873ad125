//! Several processes on one bucket: each with a log, a catalog, a clock and faults of its own.
//!
//! ```text
//!   seed --> who does what --+--> as a whole
//!                            +--> paused at some request: others do something, what it shows is looked at, it goes on
//!                            '--> dead at some request: what was durable is what the next life finds
//! ```

mod model;
mod process;

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use spoor_block::TimeWindow;
use spoor_compactor::{BlockOwner, MergeBounds, Pass};
use spoor_ingester::BlockState;
use spoor_model::ingest::AppendRequest;
use spoor_model::{BlockId, Clock, SpanEntry, TenantId, TimeRange, TraceId, UnixNano};
use spoor_testkit::faults::{FaultStore, Faults, Stop, Switch};
use spoor_testkit::random;
use spoor_testkit::rng::Rng;

use crate::traffic::{HandClock, Traffic, append, exported, request, wait};
use model::{Completeness, Deleting, Model, Number};
use process::{GRACE, Machine, Process, RETENTION};

/// Polls after which a process has looked at everything.
const POLLS_OF_ALL: usize = 11;
/// What a failure shows of what was done before it.
const LOG_LINES: usize = 60;

/// Something that a process does.
#[derive(Debug)]
enum Deed {
    Ingest(Vec<SpanEntry>, Box<AppendRequest>),
    Cut,
    Poll { sweeps: bool },
    MergeAsPlanned,
    Merge(Vec<BlockId>),
    Expire,
    Delete(TraceId),
}

/// What the model needs to know when a deed is over.
#[derive(Debug)]
enum Before {
    Nothing,
    Cut { sent: usize },
    Poll { deletions: Vec<usize> },
    Delete { sent: usize, deleting: Deleting },
}

/// How a process is.
#[derive(Debug, Default)]
struct Health {
    faults: Faults,
    /// Since there were faults it has not looked at everything.
    may_miss: bool,
    /// When the last successful polls were.
    polls: VecDeque<UnixNano>,
}

/// The processes, their bucket, and what they must say.
pub(crate) struct Fleet {
    seed: u64,
    step: u64,
    content: Arc<FaultStore>,
    clock: Arc<HandClock>,
    machines: Vec<Machine>,
    processes: Vec<Process>,
    health: Vec<Health>,
    model: Model,
    traffic: Traffic,
    tenant: TenantId,
    /// What was sent last, to be sent again.
    last: Vec<SpanEntry>,
    log: VecDeque<String>,
    pub(crate) pauses: u64,
}

/// Lets a paused process go on, also when a check fails.
struct Going<'a>(&'a Switch);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// Says that a deed is over, also when it panics.
struct Over<'a>(&'a Switch);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        let clock = Arc::new(HandClock::new());
        let content = FaultStore::in_memory(seed).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let content = Arc::new(content);
        let count = 2 + (seed % 2) as usize;
        let machine = |number| Machine::new(number, seed, &content, &clock);
        let mut machines: Vec<Machine> = (0..count).map(machine).collect();
        let start = |machine: &mut Machine| machine.start(&Arc::default(), Faults::default()).unwrap();
        let processes = machines.iter_mut().map(start).collect();
        Self {
            seed,
            step: 0,
            content,
            clock,
            machines,
            processes,
            health: (0..count).map(|_| Health::default()).collect(),
            model: Model::new(count),
            traffic: Traffic::new(seed, RETENTION / 4),
            tenant: TenantId::single(),
            last: Vec::new(),
            log: VecDeque::new(),
            pauses: 0,
        }
    }

    /// One step, and a look at what everybody shows.
    pub(crate) fn live(&mut self, rng: &mut Rng) {
        self.step += 1;
        let who = rng.index(self.processes.len());
        match rng.below(100) {
            0..9 => self.pass_time(rng),
            9..13 => self.set_faults(rng, who),
            13..16 => self.restart(rng, who, "stops"),
            _ => {
                let stop = match rng.below(10) {
                    0..3 => Some(Stop::Pause),
                    3 => Some(*rng.pick(&[Stop::DieBefore, Stop::DieAfter])),
                    _ => None,
                };
                // Most deeds are a few requests.
                let stop = stop.map(|stop| (if rng.chance(0.7) { rng.below(12) } else { rng.below(40) }, stop));
                let who = self.owner().filter(|_| rng.chance(0.3)).unwrap_or(who);
                let deed = self.deed(rng, who);
                self.act(rng, who, deed, stop);
            }
        }
        self.check_all(rng);
    }

    /// Who merges.
    fn owner(&self) -> Option<Number> {
        self.processes.iter().position(|process| process.shared.is_owner(&*process.clock))
    }

    fn note(&mut self, line: String) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>4}  {line}", self.step));
    }

    fn fail(&self, who: Number, what: &str) -> ! {
        let mut log: Vec<String> = self.log.iter().cloned().collect();
        for (number, process) in self.processes.iter().enumerate() {
            for state in process.ingester.block_states(&self.tenant) {
                let BlockState { meta, is_readable, deleted_traces, .. } = state;
                let (replaces, kin) = (meta.replaces, meta.merged_with);
                log.push(format!("{number} has {}, readable {is_readable}, {deleted_traces} deleted, replaces {replaces:?}, with {kin:?}", meta.id));
            }
        }
        log.extend(
            wait(self.content.names()).into_iter().filter(|name| name.contains('@') || name.ends_with("meta.json")),
        );
        panic!("{}\nseed {}, step {}, process {who}: a span {what}", log.join("\n"), self.seed, self.step);
    }

    fn pass_time(&mut self, rng: &mut Rng) {
        let seconds = if rng.chance(0.05) { 1800 + rng.below(4000) } else { rng.below(100) };
        self.clock.pass(seconds);
        // Old lists are of a moment ago.
        self.processes.iter().for_each(|process| wait(process.store.age()));
        self.note(format!("{seconds} s pass"));
    }

    fn set_faults(&mut self, rng: &mut Rng, who: Number) {
        let is_healthy = self.health[who].faults == Faults::default();
        let faults = match rng.below(if is_healthy { 4 } else { 2 }) {
            0 | 1 if !is_healthy => Faults::default(),
            0 => Faults { fail: 0.3, ..Faults::default() },
            1 => Faults { stale: 0.5, ..Faults::default() },
            2 => Faults { truncate: 0.1, fail: 0.05, ..Faults::default() },
            _ => Faults::down(),
        };
        self.note(format!("{who}: {faults:?}"));
        self.give(who, faults);
    }

    fn give(&mut self, who: Number, faults: Faults) {
        self.processes[who].store.set(faults);
        self.health[who].may_miss |= faults != Faults::default();
        self.health[who].faults = faults;
    }

    /// The process dies, if it is not dead yet, and another takes its place, which may die while it starts.
    fn restart(&mut self, rng: &mut Rng, who: Number, why: &str) {
        self.note(format!("{who}: {why}, and starts"));
        let mut dies = rng.chance(0.2);
        let faults = loop {
            self.processes[who].switch.arm(0, Stop::DieBefore);
            self.processes[who].brake.pull();
            let machine = &mut self.machines[who];
            machine.disk = Arc::new(machine.disk.after_crash(rng.index(4)));
            let switch = Arc::<Switch>::default();
            if dies {
                switch.arm(rng.below(6), *rng.pick(&[Stop::DieBefore, Stop::DieAfter]));
            }
            let faults = if rng.chance(0.2) { Faults::down() } else { Faults::default() };
            match machine.start(&switch, faults) {
                Ok(process) => self.processes[who] = process,
                Err(err) => assert!(switch.is_dead(), "process {who} cannot start: {err}"),
            }
            if !switch.is_dead() {
                switch.end();
                break faults;
            }
            dies = false;
            self.note(format!("{who}: dies while it starts"));
        };
        self.health[who].polls.clear();
        self.give(who, faults);
    }

    fn deed(&mut self, rng: &mut Rng, who: Number) -> Deed {
        let known = self.model.traces();
        let may_merge = self.processes[who].shared.is_owner(&*self.processes[who].clock);
        match rng.below(if may_merge { 34 } else { 20 }) {
            0..5 => {
                let again = !self.last.is_empty() && rng.chance(0.15);
                let entries = match again {
                    true => self.last.clone(),
                    false => self.traffic.entries(rng, self.clock.now()),
                };
                self.last.clone_from(&entries);
                let (sent, request) = request(&self.tenant, entries);
                Deed::Ingest(sent, Box::new(request))
            }
            5..10 => Deed::Cut,
            10 if !known.is_empty() => Deed::Delete(*rng.pick(&known)),
            10..20 => Deed::Poll { sweeps: rng.chance(0.3) },
            20..26 => Deed::MergeAsPlanned,
            26..33 => Deed::Merge(self.some_blocks(rng, who)),
            _ => Deed::Expire,
        }
    }

    /// What may be merged with each other; of any age and level.
    fn some_blocks(&self, rng: &mut Rng, who: Number) -> Vec<BlockId> {
        let mut states = self.processes[who].ingester.block_states(&self.tenant);
        states.retain(|_| rng.chance(0.5));
        states.truncate(6);
        match states.iter().position(|state| state.deleted_traces > 0) {
            Some(place) if rng.chance(0.5) => states = vec![states.swap_remove(place)],
            _ => states.retain(|state| state.deleted_traces == 0),
        }
        states.iter().map(|state| state.meta.id).collect()
    }

    /// Does something, stopped at some request if it has as many.
    fn act(&mut self, rng: &mut Rng, who: Number, deed: Deed, stop: Option<(u64, Stop)>) {
        self.note(match &deed {
            Deed::Ingest(sent, _) => format!("{who}: ingest {} spans, {stop:?}", sent.len()),
            deed => format!("{who}: {deed:?}, {stop:?}"),
        });
        let before = self.before(who, &deed);
        let process = self.processes[who].clone();
        let Some((requests, stop)) = stop else {
            let is_done = perform(&process, &self.tenant, &deed);
            return self.after(who, &deed, before, is_done);
        };
        let (switch, tenant) = (Arc::clone(&process.switch), self.tenant.clone());
        switch.arm(requests, stop);
        let is_done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _over = Over(&switch);
                perform(&process, &tenant, &deed)
            });
            if switch.has_paused() {
                let _going = Going(&switch);
                self.pauses += 1;
                self.meanwhile(rng, who);
            }
            if switch.is_dead() {
                process.brake.pull();
            }
            thread.join().unwrap()
        });
        self.after(who, &deed, before, is_done);
        if switch.is_dead() {
            drop(process);
            self.restart(rng, who, "died");
        }
    }

    /// Others do something while one is in the middle of something.
    fn meanwhile(&mut self, rng: &mut Rng, paused: Number) {
        self.note(format!("{paused}: paused"));
        self.check_all(rng);
        for _ in 0..1 + rng.below(4) {
            if rng.chance(0.2) {
                // Long enough for a lease to end.
                self.clock.pass(rng.below(200));
            }
            let others: Vec<Number> = (0..self.processes.len()).filter(|other| *other != paused).collect();
            let who = *rng.pick(&others);
            self.processes[who].shared.keep_lease(&*self.processes[who].clock);
            let deed = self.deed(rng, who);
            self.act(rng, who, deed, None);
            self.check_all(rng);
        }
        self.note(format!("{paused}: goes on"));
    }

    fn before(&mut self, who: Number, deed: &Deed) -> Before {
        match deed {
            Deed::Cut => Before::Cut { sent: self.model.is_being_cut(who) },
            Deed::Poll { .. } => Before::Poll { deletions: self.model.deletions() },
            Deed::Delete(trace) => {
                let lists_all = self.health[who].faults.stale == 0.0;
                let deleting = self.model.is_being_deleted(who, *trace, lists_all);
                Before::Delete { sent: self.model.is_being_cut(who), deleting }
            }
            _ => Before::Nothing,
        }
    }

    fn after(&mut self, who: Number, deed: &Deed, before: Before, is_done: bool) {
        if !is_done {
            self.note(format!("{who}: that failed"));
        }
        match before {
            Before::Nothing => {}
            Before::Cut { sent } => {
                if is_done {
                    self.model.is_cut(who, sent);
                }
            }
            Before::Poll { deletions } => {
                let health = &mut self.health[who];
                if is_done && health.faults.stale == 0.0 {
                    self.model.heard(who, &deletions);
                }
                if is_done && health.faults == Faults::default() {
                    health.may_miss = false;
                    health.polls.push_back(self.clock.now());
                    let surplus = health.polls.len().saturating_sub(POLLS_OF_ALL);
                    drop(health.polls.drain(..surplus));
                }
            }
            Before::Delete { sent, deleting } => {
                if is_done {
                    self.model.is_cut(who, sent);
                }
                self.model.is_deleted(deleting, is_done);
            }
        }
        if let Deed::Ingest(sent, _) = deed {
            self.model.sent(who, sent, is_done);
        }
    }

    fn horizon(&self) -> UnixNano {
        let now = self.processes.iter().map(|process| process.clock.now()).max();
        now.unwrap_or_default().minus(RETENTION)
    }

    /// Whether answers may be partial: its bucket has faults or had, or what it knows may be swept by now.
    fn may_be_partial(&self, who: Number) -> bool {
        let health = &self.health[who];
        let looked_at_all = match health.polls.len() {
            POLLS_OF_ALL => health.polls[0],
            _ => UnixNano(0),
        };
        health.may_miss || self.clock.now().since(looked_at_all) > GRACE / 2
    }

    /// Looks at what everybody shows.
    fn check_all(&mut self, rng: &mut Rng) {
        for who in 0..self.processes.len() {
            self.check(rng, who, Completeness::Own);
        }
    }

    fn check(&mut self, rng: &mut Rng, who: Number, completeness: Completeness) -> Vec<SpanEntry> {
        let (traces, skipped) = exported(&self.processes[who].querier, &self.tenant, rng);
        let entries: Vec<SpanEntry> = traces.into_iter().flat_map(|trace| trace.entries).collect();
        let completeness = match skipped.is_empty() {
            true => completeness,
            false if completeness == Completeness::Own && self.may_be_partial(who) => Completeness::Partial,
            false => self.fail(who, &format!("may be missing, as these are: {skipped:?}")),
        };
        if let Err(what) = self.model.check(who, &entries, self.horizon(), completeness) {
            self.fail(who, &what);
        }
        entries
    }

    fn poll(&mut self, who: Number, sweeps: bool) {
        let deed = Deed::Poll { sweeps };
        let before = self.before(who, &deed);
        let is_done = perform(&self.processes[who], &self.tenant, &deed);
        self.after(who, &deed, before, is_done);
    }

    /// All faults end, everybody looks until nothing is new; then all show the same, and what the oracle says of it.
    pub(crate) fn agree(&mut self, rng: &mut Rng) {
        self.note("all faults end".to_owned());
        for who in 0..self.processes.len() {
            self.give(who, Faults::default());
            let deed = Deed::Cut;
            self.act(rng, who, deed, None);
        }
        for _ in 0..POLLS_OF_ALL {
            for who in 0..self.processes.len() {
                self.poll(who, false);
            }
        }
        let mut shown: Vec<Vec<SpanEntry>> = Vec::new();
        for who in 0..self.processes.len() {
            shown.push(self.check(rng, who, Completeness::All));
            let [one, other] = [0, who].map(|who| self.processes[who].block_ids(&self.tenant));
            if one != other {
                self.fail(who, &format!("is in other blocks: {one:?} and {other:?}"));
            }
        }
        let around = TimeRange { start: self.horizon(), end: self.clock.now() };
        for (who, entries) in shown.iter().enumerate() {
            let place = format!("seed {}, step {}, process {who}", self.seed, self.step);
            let querier = &self.processes[who].querier;
            let (search, metrics) =
                (self.traffic.draw(random::search_query()), self.traffic.draw(random::metrics_query()));
            crate::queries::compare_search(querier, entries, &search, TimeRange::ALL, &place);
            crate::queries::compare_metrics(querier, entries, &metrics, around, &place);
            crate::queries::compare_metrics(querier, entries, "{ } | count_over_time()", around, &place);
        }
    }

    /// Some hours later, nothing is in the bucket but blocks that everybody knows.
    pub(crate) fn tidy(&mut self, rng: &mut Rng) {
        self.agree(rng);
        for _ in 0..6 {
            self.clock.pass(2400);
            for who in 0..self.processes.len() {
                self.poll(who, true);
            }
        }
        self.agree(rng);
        let known = self.processes[0].ingester.blocks(&self.tenant);
        let known: BTreeSet<String> = known.iter().map(|meta| meta.id.to_string()).collect();
        for name in wait(self.content.names()) {
            let block = name.split('/').find_map(BlockId::parse);
            if block.is_some_and(|block| !known.contains(&block.to_string())) {
                self.fail(0, &format!("has left something behind: {name}"));
            }
        }
    }
}

/// Whether it did what it was to do.
fn perform(process: &Process, tenant: &TenantId, deed: &Deed) -> bool {
    let Process { ingester, shared, owner, clock, .. } = process;
    match deed {
        Deed::Ingest(_, request) => append(ingester, (**request).clone()),
        Deed::Cut => ingester.flush(None).is_ok(),
        Deed::Poll { sweeps } => {
            shared.keep_lease(&**clock);
            shared.poll(ingester, &**clock, *sweeps)
        }
        Deed::MergeAsPlanned => {
            let pass = || process.compaction.run_one(&**owner, &**clock, &process.brake);
            (0..3).take_while(|_| pass() == Pass::Merged).count() > 0
        }
        Deed::Merge(ids) => {
            // As a planner would be told, that has no lease.
            if owner.tenants().is_empty() || ids.is_empty() {
                return false;
            }
            let keep_after = Some(clock.now().minus(RETENTION));
            let length = RETENTION / 8;
            let window = TimeWindow { start: clock.now().minus(length), length };
            let bounds = MergeBounds { block_spans: 60, memory_bytes: 64 << 20, keep_after, window };
            let mut watch = |_| match process.switch.is_dead() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            owner.merge(tenant, ids, &bounds, &mut watch).is_ok()
        }
        Deed::Expire => process.retention.run(&**owner, &**clock).failed_tenants == 0,
        Deed::Delete(trace) => shared.delete_trace(ingester, &**clock, tenant, *trace).is_ok(),
    }
}
