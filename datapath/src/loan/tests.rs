use super::*;
use crate::handoff;

/// A worker, turn by turn: a tenth of a millisecond each.
struct Worker {
    lending: Lending,
    turns: u64,
}

impl Worker {
    fn of(workers: usize) -> Vec<Worker> {
        let ends = handoff::between(workers).unwrap();
        let lending = |end: &Handoff| Lending::new(end, 4, Aead::Portable);
        ends.iter().map(|end| Worker { lending: lending(end), turns: 0 }).collect()
    }

    fn turn(&mut self, packets: usize) {
        self.turns += 1;
        self.lending.observe(packets, packets * 1400, self.turns / 10);
    }
}

/// Turns of all workers, with so many packets each.
fn turns(workers: &mut [Worker], packets: &[usize], turns: usize) {
    for _ in 0..turns {
        workers.iter_mut().zip(packets).for_each(|(worker, packets)| worker.turn(*packets));
    }
}

fn lend(workers: &[Worker]) -> Vec<bool> {
    workers.iter().map(|w| w.lending.is_on()).collect()
}

#[test]
fn one_lends_that_has_too_much_while_another_has_time() {
    let mut workers = Worker::of(2);
    turns(&mut workers, &[BURST, 0], 150);
    assert_eq!(lend(&workers), [true, false]);
    // Twice as much goes through now, and so it goes on.
    for _ in 0..5000 {
        turns(&mut workers, &[2 * BURST, 0], 1);
        assert_eq!(lend(&workers), [true, false]);
    }
    turns(&mut workers, &[1, 0], 200);
    assert_eq!(lend(&workers), [false, false], "it can do that alone");
}

#[test]
fn what_gives_nothing_is_ended_and_tried_again_later() {
    let mut workers = Worker::of(2);
    let mut lent = 0;
    for _ in 0..100_000 {
        turns(&mut workers, &[BURST, 0], 1);
        lent += usize::from(workers[0].lending.is_on());
    }
    assert!((1_000..20_000).contains(&lent), "{lent} of 100,000 turns");
}

#[test]
fn nobody_lends_while_no_other_has_time() {
    let mut workers = Worker::of(3);
    // The others have too much before any has had it for a window.
    for _ in 0..20_000 {
        turns(&mut workers, &[BURST; 3], 1);
        assert_eq!(lend(&workers), [false; 3]);
    }
    workers[1].lending.sleep();
    turns(&mut workers[..1], &[BURST], 150);
    assert!(workers[0].lending.is_on(), "whoever sleeps has time");
    turns(&mut workers, &[2 * BURST, BURST, BURST], 600);
    assert_eq!(lend(&workers), [false; 3], "the others have too much again");
}
