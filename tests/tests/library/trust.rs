//! Pins and signatures hold at every swap, not only when a host is opened.

use tidelock::runtime::{Component, SecretKey};
use tidelock::{ErrorKind, Host, NoSecrets, config::Config};
use tidelock_tests::data::noise;

use crate::support::{component, round_trip};

/// A backend `mine` with a component in a file, and what is demanded of it.
async fn host(dir: &std::path::Path, first: &Component, lines: &str, roots: &str) -> tidelock::Result<Host> {
    let file = dir.join("first.wasm");
    std::fs::write(&file, &first.bytes).unwrap();
    let lines_of: String = first.signatures.iter().map(|one| format!("{one}\n")).collect();
    std::fs::write(dir.join("first.wasm.sig"), lines_of).unwrap();
    let text = format!(
        "data_dir = \"data\"\n[backends.mine]\nadapter = \"./first.wasm\"\ngrants.directory.objects = {{ path = \"objects\" }}\n{lines}\n[trust.keys]\n{roots}\n"
    );
    Host::start(&Config::parse(&text, dir).unwrap(), &NoSecrets).await
}

fn signed(name: &str, keys: &[&SecretKey]) -> Component {
    let mut component = Component::from(component(name));
    component.signatures = keys.iter().map(|key| key.sign(component.digest())).collect();
    component
}

#[tokio::test]
async fn a_swap_needs_the_signature_that_the_start_needs() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new, stranger] = [(); 3].map(|()| SecretKey::generate().unwrap());
    let roots = format!("old = \"{}\"\nnew = \"{}\"", old.public(), new.public());
    let demand = "signed_by = [\"old\", \"new\"]";
    let unsigned = host(dir.path(), &signed("copying", &[]), demand, &roots).await.err().unwrap();
    assert_eq!(*unsigned.kind(), ErrorKind::Denied, "{unsigned}");
    let host = host(dir.path(), &signed("copying", &[&old]), demand, &roots).await.unwrap();
    round_trip(&host, &noise(5000, 1)).await;
    let serving = host.adapters()[0].digest.clone();
    // A signature of another component, with a key that is trusted.
    let mut moved = signed("hostile", &[]);
    moved.signatures = signed("copying", &[&new]).signatures;
    for (what, next) in [
        ("unsigned", signed("hostile", &[])),
        ("signed by a stranger", signed("hostile", &[&stranger])),
        ("signed for another", moved),
    ] {
        let error = host.swap("mine", next).await.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(*error.kind() == ErrorKind::Denied && error.to_string().contains("mine"), "{what}: {error:?}");
        assert_eq!(host.adapters()[0].digest, serving, "{what}");
        round_trip(&host, &noise(5000, 2)).await;
    }
    let report = host.swap("mine", signed("hostile", &[&stranger, &new])).await.unwrap();
    assert_ne!(report.to, serving);
    round_trip(&host, &noise(5000, 3)).await;
}

#[tokio::test]
async fn a_pinned_backend_takes_no_other_component() {
    let dir = tempfile::tempdir().unwrap();
    let first = signed("copying", &[]);
    let host = host(dir.path(), &first, &format!("digest = \"{}\"", first.digest()), "").await.unwrap();
    let error = host.swap("mine", component("hostile")).await.expect_err("it is not the pinned one");
    assert!(*error.kind() == ErrorKind::Denied && error.to_string().contains("pins"), "{error:?}");
    host.swap("mine", first).await.expect("it is the pinned one");
    round_trip(&host, &noise(5000, 1)).await;
}
