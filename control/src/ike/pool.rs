//! Threads that do what takes long, so that one slow peer holds up nobody (RFC 7296 §2.6 tells what attackers make of
//! that).

use portcullis_ike::v2::{
    job::{Job, Outcome},
    output::JobId,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Threads that do jobs, and what comes of these.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<Jobs>,
    /// There is a job more, or no more are to be done.
    more: Condvar,
    done: Mutex<Vec<(JobId, Outcome)>>,
    /// Rings when the first is done of what is not taken.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<(JobId, Job)>,
    /// Those that are waiting, are being done, or are not taken.
    open: usize,
    is_over: bool,
}

impl Pool {
    /// With so many threads.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(threads: usize) -> io::Result<Pool> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (jobs, more, done) = (Mutex::default(), Condvar::new(), Mutex::default());
        let shared = Arc::new(Shared { jobs, more, done, bell });
        let mut pool = Pool { shared, threads: vec![] };
        for n in 0..threads {
            let shared = pool.shared.clone();
            let thread = thread::Builder::new().name(format!("ike-{n}")).spawn(move || shared.work())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// What is to be waited for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.as_fd()
    }

    /// Has a job done.
    pub fn give(&self, id: JobId, job: Job) {
        let mut jobs = locked(&self.shared.jobs);
        jobs.waiting.push_back((id, job));
        jobs.open += 1;
        drop(jobs);
        self.shared.more.notify_one();
    }

    /// Jobs that are not done.
    pub fn waiting(&self) -> usize {
        locked(&self.shared.jobs).open
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// All that is done.
    pub fn take(&self) -> Vec<(JobId, Outcome)> {
        let mut done = locked(&self.shared.done);
        if done.is_empty() {
            return vec![];
        }
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        let taken = std::mem::take(&mut *done);
        drop(done);
        locked(&self.shared.jobs).open -= taken.len();
        taken
    }
}

impl Shared {
    /// What a thread does.
    fn work(&self) {
        while let Some((id, job)) = self.next() {
            let outcome = job.run(&mut super::rng());
            let mut done = locked(&self.done);
            done.push((id, outcome));
            if done.len() == 1 {
                let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
            }
        }
    }

    fn next(&self) -> Option<(JobId, Job)> {
        let mut jobs = locked(&self.jobs);
        loop {
            if jobs.is_over {
                return None;
            }
            match jobs.waiting.pop_front() {
                Some(job) => return Some(job),
                None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// A thread that panics leaves nothing half done: the lock is not held while a job is.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Pool {
    fn drop(&mut self) {
        locked(&self.shared.jobs).is_over = true;
        self.shared.more.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_ike::{
        crypto::transform::KeyExchange, ike_sa::IkeSaId, proposal::Proposals, v2::puzzle::Puzzle,
    };
    use rustix::event::{PollFd, PollFlags, poll};

    const LONG: JobId = id(0);

    const fn id(n: u64) -> JobId {
        JobId { ike_sa: IkeSaId(n), answers: false }
    }

    /// As [`Pool::take`], when there is something.
    fn take(pool: &Pool) -> Vec<(JobId, Outcome)> {
        poll(&mut [PollFd::new(&pool.fd(), PollFlags::IN)], None).unwrap();
        pool.take()
    }

    #[test]
    fn a_long_job_holds_up_no_short_ones() {
        let pool = Pool::new(2).unwrap();
        let offered = Proposals::ike(["aes128gcm16-prfsha256-x25519"]).unwrap().offer(&[]);
        pool.give(LONG, Job::Solve(Puzzle::new(&offered, 20, b"a cookie").unwrap()));
        let short = (1..=16).map(id);
        short.clone().for_each(|id| pool.give(id, Job::Generate(KeyExchange::X25519)));
        let mut done = vec![];
        while done.len() < 16 {
            done.extend(take(&pool));
        }
        assert!(done.iter().all(|(_, outcome)| matches!(outcome, Outcome::Generated(..))));
        assert!(done.iter().map(|(id, _)| *id).eq(short), "the other thread does them, in their order");
        assert_eq!(pool.waiting(), 1);
        assert!(matches!(take(&pool)[..], [(LONG, Outcome::Solved(Some(_)))]));
        assert_eq!(pool.waiting(), 0);
        // The bell is silent again.
        assert!(rustix::io::read(pool.fd(), &mut [0; 8]).is_err() && pool.take().is_empty());
    }
}
