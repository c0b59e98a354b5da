//! The traits that an adapter implements, and the macros that export them.
//!
//! The generated `Guest` traits are implemented once, here, for [`Exported`]: it checks every id, key and label name
//! that comes in and turns handles into [`Data`] and [`Body`], so that an adapter never meets a raw handle. An adapter
//! implements [`Adapter`], and as many of [`Archive`], [`Account`] and [`Inventory`] as its backend can do.

#![allow(async_fn_in_trait, reason = "a guest has one thread, so futures need not be Send")]

use std::marker::PhantomData;

use crate::bindings::{accounting, archiving, exports, listing};
use crate::{
    AccountState, ArchiveState, Body, ByteRange, Data, Description, Error, Health, InventoryPage, ObjectId, ObjectStat,
    Receipt, StoreHint, ids,
};

/// A storage adapter. Export it with [`export_adapter!`](crate::export_adapter!).
///
/// Each call runs in a fresh instance: statics and the like do not survive it.
pub trait Adapter {
    /// Name, version, features and settings. Called when the component is loaded, before any capability works: it must
    /// depend on nothing.
    fn describe() -> Description;

    /// Stores bytes as a new object. When it returns, the object is durable and complete. Before that it is not
    /// visible, and never is if this fails.
    async fn store(data: Data, hint: StoreHint) -> Result<Receipt, Error>;

    /// Returns the bytes of an object, or of a part of it. An error before the first byte is returned at once; a later one
    /// is the result of the body. A range that begins beyond the end is `invalid`, one that ends beyond it is cut.
    async fn retrieve(id: ObjectId, range: Option<ByteRange>) -> Result<Body, Error>;

    /// Stores `delta` as a new object that records `base`, so that `stat` gives it back; `not-found` if there is no such
    /// base. The guarantees of `store` hold. An adapter that does not offer it must not declare `Features::LINEAGE`.
    async fn incremental_update(base: ObjectId, delta: Data, hint: StoreHint) -> Result<Receipt, Error> {
        let _ = (base, delta, hint);
        Err(Error::unsupported("this adapter keeps no lineage"))
    }

    /// Returns the metadata of an object, without reading it.
    async fn stat(id: ObjectId) -> Result<ObjectStat, Error>;

    /// Removes an object. Succeeds if there is none.
    async fn remove(id: ObjectId) -> Result<(), Error>;

    /// Returns whether the backend can serve now. Cheap, and changes nothing.
    async fn probe() -> Result<Health, Error>;
}

/// For backends whose objects must be thawed before they can be read. Export it with
/// [`export_archive!`](crate::export_archive!).
pub trait Archive {
    /// Asks that an object become readable for so many days. Asking again while it is under way is not an error.
    async fn restore(id: ObjectId, days: u32) -> Result<ArchiveState, Error>;
}

/// For backends that are paid from a wallet. Export it with [`export_account!`](crate::export_account!).
pub trait Account {
    /// Returns the current balances.
    async fn balance() -> Result<AccountState, Error>;
}

/// For backends that can list their objects. Export it with [`export_inventory!`](crate::export_inventory!).
pub trait Inventory {
    /// Returns some of the objects that this adapter has stored, at most `limit` of them (never 0), in an order of the backend's
    /// choosing. A page may be short or empty as long as `next` says where to go on; only the last page has no `next`.
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error>;
}

/// An adapter as the component exports it.
#[derive(Debug)]
pub struct Exported<A>(PhantomData<A>);

fn checked(hint: StoreHint) -> Result<StoreHint, Error> {
    if !ids::is_key(&hint.key) {
        return Err(Error::invalid("a key is 1 to 64 lower-case letters, digits and `-`"));
    }
    if !hint.labels.iter().all(|(name, _)| ids::is_label_name(name)) {
        return Err(Error::invalid("the name of a label is lower-case letters, digits and `-`"));
    }
    Ok(hint)
}

impl<A: Adapter> exports::tidelock::storage::adapter::Guest for Exported<A> {
    fn describe() -> Description {
        A::describe()
    }

    async fn retrieve(
        id: String,
        range: Option<ByteRange>,
    ) -> Result<crate::bindings::tidelock::storage::types::Body, Error> {
        A::retrieve(ObjectId::new(id)?, range).await.map(Body::into_parts)
    }

    async fn incremental_update(
        base: String,
        delta: wit_bindgen::rt::async_support::StreamReader<u8>,
        hint: StoreHint,
    ) -> Result<Receipt, Error> {
        A::incremental_update(ObjectId::new(base)?, delta.into(), checked(hint)?).await
    }

    async fn stat(id: String) -> Result<ObjectStat, Error> {
        A::stat(ObjectId::new(id)?).await
    }

    async fn remove(id: String) -> Result<(), Error> {
        A::remove(ObjectId::new(id)?).await
    }

    async fn probe() -> Result<Health, Error> {
        A::probe().await
    }

    async fn store(data: wit_bindgen::rt::async_support::StreamReader<u8>, hint: StoreHint) -> Result<Receipt, Error> {
        A::store(data.into(), checked(hint)?).await
    }
}

impl<A: Archive> archiving::exports::tidelock::storage::archive::Guest for Exported<A> {
    async fn restore(id: String, days: u32) -> Result<ArchiveState, Error> {
        A::restore(ObjectId::new(id)?, days).await
    }
}

impl<A: Account> accounting::exports::tidelock::storage::account::Guest for Exported<A> {
    async fn balance() -> Result<AccountState, Error> {
        A::balance().await
    }
}

impl<A: Inventory> listing::exports::tidelock::storage::inventory::Guest for Exported<A> {
    async fn list_objects(cursor: Option<String>, limit: u32) -> Result<InventoryPage, Error> {
        if limit == 0 {
            return Err(Error::invalid("a page holds at least one object"));
        }
        A::list_objects(cursor, limit).await
    }
}

/// Exports a type that implements [`Adapter`](crate::Adapter) from the component. Once in a crate.
///
/// On other targets than wasm it only checks the type, so that the crate's tests can run anywhere.
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ty) => {
        $crate::__export!($adapter, Adapter, bindings, export_storage_adapter);
    };
}

/// Exports a type that implements [`Archive`](crate::Archive), beside [`export_adapter!`](crate::export_adapter!).
#[macro_export]
macro_rules! export_archive {
    ($adapter:ty) => {
        $crate::__export!($adapter, Archive, bindings::archiving, export_archiving);
    };
}

/// Exports a type that implements [`Account`](crate::Account), beside [`export_adapter!`](crate::export_adapter!).
#[macro_export]
macro_rules! export_account {
    ($adapter:ty) => {
        $crate::__export!($adapter, Account, bindings::accounting, export_accounting);
    };
}

/// Exports a type that implements [`Inventory`](crate::Inventory), beside [`export_adapter!`](crate::export_adapter!).
#[macro_export]
macro_rules! export_inventory {
    ($adapter:ty) => {
        $crate::__export!($adapter, Inventory, bindings::listing, export_listing);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($adapter:ty, $interface:ident, $($module:ident)::+, $export:ident) => {
        const _: () = {
            const fn implements<A: $crate::$interface>() {}
            implements::<$adapter>();
        };
        // The names of the exports are none that a linker for another target would take.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::Exported<$adapter>;
            $crate::$($module)::+::$export!(Exported with_types_in $crate::$($module)::+);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(key: &str, label: &str) -> StoreHint {
        StoreHint { key: key.into(), size: None, labels: vec![(label.into(), "any\nthing".into())] }
    }

    #[test]
    fn hints_are_checked_before_an_adapter_sees_them() {
        assert!(checked(hint("key-1", "name-1")).is_ok());
        for (key, label) in [("", "n"), ("../k", "n"), ("k", ""), ("k", "N"), ("k", "a b"), ("k.base", "n")] {
            assert!(matches!(checked(hint(key, label)), Err(Error::Invalid(_))), "{key:?} {label:?}");
        }
    }
}
