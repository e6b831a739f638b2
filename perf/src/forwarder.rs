//! A plain AF_XDP forwarder: receive, swap the MAC addresses, send. What the tunnel is measured against.

use crate::interface::{Interfaces, Lane};
use arrayvec::ArrayVec;
use portcullis_datapath::{batch::BATCH, frame::Frame, idle, port::Port};
use std::sync::atomic::{AtomicBool, Ordering};

/// Turns without a frame before it sleeps, and how long: as a worker does.
const IDLE_TURNS: u32 = 256;
const SLEEP_MS: i32 = 50;

/// Forwards between the first two interfaces until told to stop. Returns the frames forwarded and dropped.
pub fn run(interfaces: &mut Interfaces, stop: &AtomicBool) -> (u64, u64) {
    let (mut forwarded, mut dropped, mut idle_turns) = (0u64, 0u64, 0);
    let mut frames = ArrayVec::<Frame, BATCH>::new();
    let Lane { ports, cache } = &mut interfaces.lanes[0];
    while !stop.load(Ordering::Relaxed) {
        let before = forwarded;
        for from in 0..2 {
            ports[from].rx(&mut frames, cache);
            frames.iter_mut().for_each(swap);
            let (received, to) = (frames.len(), &mut ports[1 - from]);
            if received > 0 {
                to.tx(&mut frames);
            }
            forwarded += (received - frames.len()) as u64;
            for frame in frames.drain(..) {
                dropped += 1;
                cache.give(frame);
            }
        }
        for port in &mut *ports {
            port.maintain(cache);
        }
        idle_turns = if forwarded == before { idle_turns + 1 } else { 0 };
        if idle_turns > IDLE_TURNS {
            let mut fds = ArrayVec::<libc::pollfd, 8>::new();
            for port in &*ports {
                port.poll_fds(&mut |fd| fds.push(idle::readable(fd)));
            }
            idle::sleep_on(&mut fds, SLEEP_MS);
        }
    }
    (forwarded, dropped)
}

fn swap(frame: &mut Frame) {
    if let Some(macs) = frame.bytes_mut().first_chunk_mut::<12>() {
        let (dst, src) = macs.split_at_mut(6);
        dst.swap_with_slice(src);
    }
}
