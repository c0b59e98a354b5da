//! The history of adapters.

use super::Place;
use crate::catalogue::SwapRow;

fn row(event: &str, generation: Option<u64>) -> SwapRow {
    SwapRow {
        event: event.into(),
        generation,
        digest: format!("sha256:{event}"),
        adapter: "fs".into(),
        version: "1".into(),
        at: 7,
        by: "a test".into(),
        previous: None,
        stage: Some("probe".into()),
        why: Some("because".into()),
        configured: "sha256:first".into(),
    }
}

pub(crate) async fn rows_keep_their_order_and_generations_count_up(place: Place) {
    let catalogue = place.open().await;
    for (event, generation) in [("a", Some(0)), ("b", None), ("c", Some(99))] {
        catalogue.add_swap("x", row(event, generation), 10).await.unwrap();
    }
    let written = catalogue.add_swap("y", row("d", Some(0)), 10).await.unwrap();
    assert_eq!(written, row("d", Some(1)));
    let again = place.open().await;
    assert_eq!(again.swaps("x").await.unwrap(), [row("a", Some(1)), row("b", None), row("c", Some(2))]);
    assert_eq!(again.swaps("y").await.unwrap(), std::slice::from_ref(&written));
    assert_eq!(again.swaps("z").await.unwrap(), []);
    let all = again.all_swaps().await.unwrap();
    assert_eq!(all.iter().map(|(backend, _)| backend.as_str()).collect::<Vec<_>>(), ["x", "x", "x", "y"]);
    assert_eq!(all[3].1, written);
}

pub(crate) async fn old_rows_go_and_the_one_that_serves_stays(place: Place) {
    let catalogue = place.open().await;
    catalogue.add_swap("x", row("a", Some(0)), 3).await.unwrap();
    for _ in 0..5 {
        catalogue.add_swap("x", row("b", None), 3).await.unwrap();
    }
    let events: Vec<_> = catalogue.swaps("x").await.unwrap().into_iter().map(|row| row.event).collect();
    assert_eq!(events, ["a", "b", "b", "b"]);
    catalogue.add_swap("x", row("c", Some(0)), 3).await.unwrap();
    let events: Vec<_> = catalogue.swaps("x").await.unwrap().into_iter().map(|row| row.event).collect();
    assert_eq!(events, ["b", "b", "c"]);
}

pub(crate) async fn generations_of_several_handles_have_numbers_of_their_own(place: Place) {
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let other = place.open().await;
        tasks.push(tokio::spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..10 {
                numbers.extend(other.add_swap("x", row("a", Some(0)), 100).await.unwrap().generation);
            }
            numbers
        }));
    }
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<u64>>());
}
