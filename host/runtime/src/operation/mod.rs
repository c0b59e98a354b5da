//! What bounds one operation: its state behind the guest, its limits, what it has used, and the watch beside it.

pub(crate) mod held;
pub(crate) mod limits;
pub(crate) mod state;
pub(crate) mod usage;
pub(crate) mod watchdog;
