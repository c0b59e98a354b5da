//! Runs tasks one step at a time, in an order that a list of choices decides.
//!
//! A step goes from one *point* to the next: points are before and after every call of a backend, and before every call of
//! the catalogue. Work on blocking threads in between is waited for, so that the same choices give the same run.

use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use futures::future::BoxFuture;

/// How long a task may wait without a point before it counts as waiting for another task.
const BLOCKED: Duration = Duration::from_millis(200);

/// Where tasks are, shared by all whose calls are points.
#[derive(Default)]
pub(super) struct Points(Mutex<State>);

#[derive(Default)]
struct State {
    /// The thread that polls a task, while it does.
    inside: Option<ThreadId>,
    at_point: bool,
    task: usize,
    steps: Vec<Step>,
}

/// The number of a task, and the point that it had come to.
pub(super) type Step = (usize, &'static str);

impl Points {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets other tasks go first, if the scheduler decides so. Outside of tasks, nothing.
    pub(super) async fn point(&self, what: &'static str) {
        {
            let mut state = self.state();
            if state.inside != Some(std::thread::current().id()) {
                return;
            }
            let task = state.task;
            state.steps.push((task, what));
        }
        let mut passed = false;
        poll_fn(|context| {
            if std::mem::replace(&mut passed, true) {
                return Poll::Ready(());
            }
            self.state().at_point = true;
            // For those in between that poll only who has called.
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// The task that runs.
    pub(super) fn task(&self) -> usize {
        self.state().task
    }

    /// The steps so far.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.state().steps.clone()
    }
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Bell {
    fn wait(&self) -> bool {
        let rung = self.rung.lock().unwrap();
        let (mut rung, _) = self.changed.wait_timeout_while(rung, BLOCKED, |rung| !*rung).unwrap();
        std::mem::take(&mut rung)
    }
}

/// A task. Given up after so many steps of its own, if that is said.
pub(super) struct Task {
    pub(super) number: usize,
    pub(super) future: BoxFuture<'static, ()>,
    pub(super) given_up_after: Option<u32>,
}

/// Runs the tasks to their ends. Each choice is how many of the other tasks that can go on are passed over: 0 stays with the
/// task. Past the end of the choices it is always 0.
pub(super) fn run(points: &Points, tasks: Vec<Task>, choices: &[u8]) {
    let mut tasks: Vec<Option<Task>> = tasks.into_iter().map(Some).collect();
    let bells: Vec<Arc<Bell>> = tasks.iter().map(|_| Arc::default()).collect();
    let mut taken = vec![0u32; tasks.len()];
    let (mut current, mut choices, mut blocked) = (0, choices.iter(), 0);
    while tasks.iter().any(Option::is_some) {
        let skip = choices.next().copied().unwrap_or(0);
        let left = tasks.iter().filter(|task| task.is_some()).count();
        // From the current one on, those that are left.
        let order = (0..tasks.len()).map(|step| (current + step) % tasks.len());
        let runnable: Vec<usize> = order.filter(|number| tasks[*number].is_some()).collect();
        current = runnable[(usize::from(skip) + blocked) % left];
        let Some(task) = &mut tasks[current] else { continue };
        if task.given_up_after.is_some_and(|steps| taken[current] >= steps) {
            tasks[current] = None;
            continue;
        }
        match step(points, task, &bells[current]) {
            Stepped::ToPoint => {
                taken[current] += 1;
                blocked = 0;
            }
            Stepped::ToEnd => {
                tasks[current] = None;
                blocked = 0;
            }
            Stepped::Waits => {
                blocked += 1;
                assert!(blocked < 10 * left, "all tasks wait for each other: {:?}", points.steps());
            }
        }
    }
}

enum Stepped {
    ToPoint,
    ToEnd,
    Waits,
}

fn step(points: &Points, task: &mut Task, bell: &Arc<Bell>) -> Stepped {
    let waker = Waker::from(bell.clone());
    loop {
        {
            let mut state = points.state();
            (state.at_point, state.task) = (false, task.number);
            state.inside = Some(std::thread::current().id());
        }
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = points.state();
        state.inside = None;
        let at_point = state.at_point;
        drop(state);
        match polled {
            Poll::Ready(()) => return Stepped::ToEnd,
            Poll::Pending if at_point => return Stepped::ToPoint,
            Poll::Pending if bell.wait() => {}
            Poll::Pending => return Stepped::Waits,
        }
    }
}
