//! Which grants a guest has: `tidelock:storage/grants`, since 0.1.1.

use super::bindings::tidelock::storage::grants as wit;
use crate::operation::state::OperationState;

impl wit::Host for OperationState {
    fn has(&mut self, kind: wit::Kind, name: String) -> wasmtime::Result<bool> {
        self.called()?;
        let granted = &self.environment.capabilities;
        let has = match kind {
            wit::Kind::Http => granted.http(&name).is_ok(),
            wit::Kind::Bucket => granted.bucket(&name).is_ok(),
            wit::Kind::Directory => granted.directory(&name).is_ok(),
        };
        Ok(has && self.capable)
    }
}
