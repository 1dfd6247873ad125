//! One at a time among all processes on a store: deleting a trace, and making merged blocks visible.
//!
//! ```text
//!   deleting   [ enter | see what others merged | name the blocks that hold the trace, in the store, then here | leave ]
//!   merging    blocks are built and uploaded ... [ enter | what was deleted from the inputs? | put meta.json | leave ]
//! ```
//!
//! A deletion covers the blocks that it names and no other. So no merge may bring what is covered together with what is not:
//! before its blocks become visible, it looks for deletions from its inputs that it has not heard of, and gives
//! up when there is one. And a deletion looks for what was merged before, so that it names it. Whichever of the two comes
//! first, what is acknowledged after a deletion is in no block that it names.

use std::fmt::Debug;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use spoor_block::{BlockMeta, Error};
use spoor_model::Clock;

use super::files::ObjectFiles;
use super::lease::{Holder, Lease};

const NAME: &str = "@deleting";
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Lets one in at a time.
#[derive(Debug)]
pub struct Exclusion {
    /// A lease tells processes apart, and not the threads of one.
    process: Mutex<()>,
    lease: Lease,
}

/// Being in. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn<'a> {
    lease: &'a Lease,
    _process: MutexGuard<'a, ()>,
}

impl Exclusion {
    /// Among all with the same store. Nobody stays in for longer than `length`; whoever does is taken for gone.
    pub fn new(files: &ObjectFiles, holder: Holder, length: Duration) -> Self {
        // A turn is no data directory's: of a copied one, two processes could be in.
        let holder = Holder { owner: holder.life.clone(), ..holder };
        Self { process: Mutex::default(), lease: Lease::named(NAME, files, holder, length) }
    }

    /// Waits for its turn. Blocks for about `patience` at most, and as long as the store is waited for.
    ///
    /// # Errors
    /// One line, when the turn did not come or the store cannot be asked.
    pub fn enter(&self, clock: &dyn Clock, patience: Duration) -> Result<Turn<'_>, String> {
        let busy = || "another deletion or merge is just being made visible".to_owned();
        let process = self.process.try_lock_for(patience).ok_or_else(busy)?;
        for _ in 0..=patience.as_millis() / PAUSE.as_millis() {
            if self.lease.keep(clock)? {
                return Ok(Turn { lease: &self.lease, _process: process });
            }
            if self.lease.is_stopping() {
                break;
            }
            std::thread::park_timeout(PAUSE);
        }
        Err(busy())
    }
}

impl Turn<'_> {
    /// Whether nobody else can be in yet. Costs nothing.
    pub fn lasts(&self, clock: &dyn Clock) -> bool {
        self.lease.is_held(clock)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lease.release();
    }
}

/// Who decides whether merged blocks may become visible.
pub trait Gate: Debug + Send + Sync {
    /// Calls `publish` if the block may take the place of what it replaces, and keeps it so until that returns.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when it may not, that of `publish`, or why it is not known.
    fn pass(&self, meta: &BlockMeta, publish: &mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>;
}
