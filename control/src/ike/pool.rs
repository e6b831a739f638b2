//! Threads that do what takes long, so that one slow peer holds up nobody (RFC 7296 §2.6 tells what attackers make of
//! that).

use portcullis_ike::v2::{
    job::{Job, Outcome},
    output::JobId,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// Threads that do jobs, and what comes of these.
#[derive(Debug)]
pub struct Pool {
    jobs: Option<mpsc::Sender<(JobId, Job)>>,
    outcomes: mpsc::Receiver<(JobId, Outcome)>,
    bell: Arc<OwnedFd>,
    threads: Vec<thread::JoinHandle<()>>,
    /// Jobs that are not done.
    waiting: Cell<usize>,
}

impl Pool {
    /// With so many threads.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (jobs, waiting) = mpsc::channel::<(JobId, Job)>();
        let (done, outcomes) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let work = |n| {
            let (waiting, done, bell) = (waiting.clone(), done.clone(), bell.clone());
            thread::Builder::new().name(format!("ike-{n}")).spawn(move || {
                loop {
                    let next = waiting.lock().ok().and_then(|waiting| waiting.recv().ok());
                    let Some((id, job)) = next else { return };
                    let outcome = job.run(&mut super::rng());
                    if done.send((id, outcome)).is_err() {
                        return;
                    }
                    // A bell that rings already wakes as well.
                    let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
                }
            })
        };
        let threads = (0..threads).map(work).collect::<io::Result<_>>()?;
        Ok(Pool { jobs: Some(jobs), outcomes, bell, threads, waiting: Cell::new(0) })
    }

    /// What is to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Has a job done.
    pub fn give(&self, id: JobId, job: Job) {
        self.waiting.set(self.waiting.get() + 1);
        // Its threads end with it alone.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send((id, job)));
    }

    /// Jobs that are not done.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// What is done, if anything is.
    pub fn take(&self) -> Option<(JobId, Outcome)> {
        let mut rung = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut rung);
        let taken = self.outcomes.try_recv().ok()?;
        self.waiting.set(self.waiting.get() - 1);
        Some(taken)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
