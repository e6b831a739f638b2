//! AF_XDP ports over a veth pair: what one end sends, the other receives whole, once, and in order; who serves a
//! queue's rings; and where every chunk is in the end.
//!
//! Needs root. Each test has a network namespace of its own, without a name: it goes with the thread.

#[path = "../../ebpf/tests/frames/mod.rs"]
mod frames;
mod netns;

use arrayvec::ArrayVec;
use frames::tables::{OWN4, PEER4};
use frames::{ESP, IPV4, ethernet, ipv4};
use netns::{Wire, ip, wait};
use portcullis_datapath::{
    batch::BATCH,
    fib::Prefix,
    frame::Frame,
    handoff::{self, Handoff},
    idle,
    pool::{FrameCache, FramePool},
    port::{
        BURST, Port,
        af_xdp::{self, AfXdpPort, Copying, Interface},
    },
    steering::{Owner, Steering, Wanted},
    umem::{HugePages, Umem},
};
use portcullis_ebpf::worker_of_spi;
use std::{ffi::CString, sync::Arc, time::Duration};

const SOON: Duration = Duration::from_secs(5);
/// Octets in front of what the kernel receives.
const HEADROOM: usize = 256;

/// How the two ends are.
#[derive(Clone, Copy)]
struct Shape {
    queues: u32,
    workers: u32,
    ring: u32,
    frame_size: u16,
    pages: HugePages,
    mode: Wanted,
}

const PLAIN: Shape = Shape {
    queues: 1,
    workers: 1,
    ring: 256,
    frame_size: 4096,
    pages: HugePages::Auto,
    mode: Wanted::Driver,
};

/// A worker's half of an end.
struct Half {
    port: AfXdpPort,
    cache: FrameCache,
}

impl Half {
    fn send(&mut self, packets: &[Vec<u8>]) {
        let mut list = ArrayVec::<Frame, BATCH>::new();
        for packet in packets {
            let mut frame = self.cache.take().expect("the pool has enough");
            assert!(frame.scatter(packet, &mut self.cache));
            list.push(frame);
            if list.len() == BURST.min(packets.len()) {
                self.flush(&mut list);
            }
        }
        self.flush(&mut list);
    }

    fn flush(&mut self, list: &mut ArrayVec<Frame, BATCH>) {
        let sent = wait(SOON, || {
            self.port.tx(list);
            self.port.maintain(&mut self.cache);
            list.is_empty()
        });
        assert!(sent, "the ring has no room");
    }

    /// What has come by now: segments, and octets.
    fn receive(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut list = ArrayVec::<Frame, BATCH>::new();
        self.port.rx(&mut list, &mut self.cache);
        let whole = |frame: Frame| {
            let mut packet = vec![0; frame.total_len()];
            frame.gather(&mut packet);
            let segments = frame.segments();
            self.cache.give(frame);
            (segments, packet)
        };
        list.drain(..).map(whole).collect()
    }
}

fn port(interface: &str, queues: u32) -> Interface {
    let name = CString::new(interface).unwrap();
    // SAFETY: the name ends in zero and outlives the call.
    let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
    Interface { name: interface.to_owned(), ifindex, queues }
}

/// One end of the cable: its own memory, sockets and program.
struct End {
    shape: Shape,
    pool: Arc<FramePool>,
    halves: Vec<Half>,
    workers: Vec<Handoff>,
    steering: Steering,
}

impl End {
    fn open(interface: &str, shape: Shape) -> End {
        let pool = FramePool::new(Umem::new(4096, shape.frame_size, shape.pages).unwrap().0);
        let workers = handoff::between(shape.workers as usize).unwrap();
        let ports = [port(interface, shape.queues)];
        let opened =
            af_xdp::open(pool.umem(), &ports, &workers[0].inboxes(), shape.ring, Copying::Auto).unwrap();
        assert!(!opened.zero_copy && opened.told.is_some(), "veth has no zero-copy, and it is told");
        let mut steering = Steering::load(shape.workers).unwrap();
        steering.protect(Prefix { addr: OWN4.into(), len: 32 }, Owner::Kernel).unwrap();
        assert_eq!(opened.sockets.len() as u32, shape.queues * shape.workers);
        for (port, queue, worker, socket) in &opened.sockets {
            steering.set_socket(*port, *queue, *worker, socket.fd()).unwrap();
        }
        steering.attach(0, interface, shape.mode).unwrap();
        let half = |mut ports: Vec<AfXdpPort>| Half { port: ports.remove(0), cache: pool.cache() };
        let mut halves: Vec<_> = opened.ports.into_iter().map(half).collect();
        halves.iter_mut().for_each(|h| h.port.maintain(&mut h.cache));
        End { shape, pool, halves, workers, steering }
    }

    fn maintain(&mut self) {
        self.halves.iter_mut().for_each(|h| h.port.maintain(&mut h.cache));
    }

    fn lent(&self) -> usize {
        usize::try_from(self.halves.iter().map(|h| h.port.lent()).sum::<i64>()).unwrap()
    }

    /// Every chunk is in the pool or in a fill ring; the kernel has dropped nothing.
    fn close(mut self) {
        let Shape { ring, queues, .. } = self.shape;
        let full = (ring * queues) as usize;
        let sent = wait(SOON, || {
            self.maintain();
            self.lent() <= full
        });
        assert!(sent, "{} chunks are with the kernel, the fill rings have {full}", self.lent());
        assert!(self.lent() + queues as usize * BURST > full, "the fill rings are filled");
        for half in &mut self.halves {
            assert_eq!(half.port.stats(), Default::default());
            half.port.close(&mut half.cache);
        }
        let lent = self.lent();
        self.halves.clear();
        assert_eq!(self.pool.free() + lent, self.pool.umem().frames() as usize);
        self.steering.detach().unwrap();
    }
}

/// Two ends of a cable.
fn cable(near: Shape, far: Shape) -> (End, End) {
    netns::enter();
    let queues = |s: Shape| format!("numrxqueues {0} numtxqueues {0}", s.queues);
    ip(&format!("link add near mtu 9000 {} type veth peer name far mtu 9000 {}", queues(near), queues(far)));
    ip("link set near up");
    ip("link set far up");
    (End::open("near", near), End::open("far", far))
}

/// An ESP packet in a frame of `len` octets, told from others by `n`.
fn packet(spi: u32, n: u32, len: usize) -> Vec<u8> {
    let mut esp = [spi.to_be_bytes(), n.to_be_bytes()].concat();
    esp.extend((esp.len() + 34..len).map(|i| (i as u32).wrapping_mul(n | 1) as u8));
    ethernet(&[], IPV4, &ipv4(PEER4, OWN4, ESP, &esp))
}

/// An SPI of this worker.
fn spi(worker: u32, workers: u32) -> u32 {
    (0x1000..).find(|spi| worker_of_spi(*spi, workers) == worker).unwrap()
}

/// Receives until so many have come, and a while longer.
fn collect(half: &mut Half, expected: usize) -> Vec<(usize, Vec<u8>)> {
    let mut got = vec![];
    wait(SOON, || {
        got.extend(half.receive());
        half.port.maintain(&mut half.cache);
        got.len() >= expected
    });
    got.extend(half.receive());
    got
}

#[track_caller]
fn arrives_whole(shape: Shape) {
    let (mut near, mut far) = cable(shape, shape);
    let chunk = shape.frame_size as usize - HEADROOM;
    let sizes = [60, 64, 1514, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1, 9000, 9014];
    let packets: Vec<_> = (0..).zip(sizes).map(|(n, len)| packet(spi(0, 1), n, len)).collect();
    for _ in 0..100 {
        near.halves[0].send(&packets);
        let got = collect(&mut far.halves[0], packets.len());
        assert_eq!(got.len(), packets.len());
        for ((segments, got), sent) in got.iter().zip(&packets) {
            assert!(got == sent, "{} octets became {}", sent.len(), got.len());
            assert_eq!(*segments, sent.len().div_ceil(chunk));
        }
        std::mem::swap(&mut near, &mut far);
    }
    near.close();
    far.close();
}

#[test]
fn frames_of_all_sizes_arrive_whole() {
    arrives_whole(PLAIN);
}

#[test]
fn frames_of_all_sizes_arrive_whole_in_small_chunks() {
    arrives_whole(Shape { frame_size: 2048, ..PLAIN });
}

/// Chunks of a power of two: unaligned ones are of huge pages.
#[test]
fn frames_of_all_sizes_arrive_whole_in_small_pages() {
    arrives_whole(Shape { pages: HugePages::Off, ..PLAIN });
    arrives_whole(Shape { pages: HugePages::Off, frame_size: 2048, ..PLAIN });
}

#[test]
fn frames_of_all_sizes_arrive_whole_in_generic_mode() {
    arrives_whole(Shape { mode: Wanted::Generic, ..PLAIN });
}

/// Each worker gets what is its own, from each queue; what it sends comes back by whoever serves the rings.
#[track_caller]
fn each_gets_its_own(shape: Shape, bursts: u32) {
    let (mut near, mut far) = cable(shape, Shape { workers: shape.queues, ..shape });
    let Shape { workers, queues, .. } = shape;
    let own: Vec<_> = (0..workers).map(|w| spi(w, workers)).collect();
    let mut n = 0;
    for _ in 0..bursts {
        // Worker q of the far end sends on its queue q, and the cable keeps the queue.
        let mut sent = vec![vec![]; workers as usize];
        for queue in 0..queues {
            let owners = (0..32).map(|i| (i % workers) as usize);
            let burst: Vec<_> = owners.clone().zip(n..).map(|(w, n)| packet(own[w], n, 80)).collect();
            n += 32;
            owners.zip(&burst).for_each(|(w, p)| sent[w].push(p.clone()));
            far.halves[queue as usize].send(&burst);
        }
        for (half, sent) in near.halves.iter_mut().zip(&mut sent) {
            let mut got: Vec<_> = collect(half, sent.len()).into_iter().map(|(_, p)| p).collect();
            // In order within a queue; the queues are asked in turn.
            if queues > 1 {
                got.sort();
                sent.sort();
            }
            assert!(got == *sent, "{} of {} frames", got.len(), sent.len());
        }
        // And back: to the far end's workers by the SPI, whichever queue it comes by.
        let mut back = vec![0; queues as usize];
        for (worker, half) in near.halves.iter_mut().enumerate() {
            let packets: Vec<_> = (0..8).map(|i| packet(own[worker], i, 100)).collect();
            half.send(&packets);
            back[worker_of_spi(own[worker], queues) as usize] += packets.len();
        }
        near.maintain();
        for (half, expected) in far.halves.iter_mut().zip(back) {
            // A worker that serves no queue that is used gets its frames all the same.
            assert_eq!(collect(half, expected).len(), expected);
        }
        far.maintain();
    }
    near.close();
    far.close();
}

#[test]
fn two_workers_share_a_queue() {
    each_gets_its_own(Shape { workers: 2, ..PLAIN }, 500);
}

#[test]
fn three_workers_share_two_queues() {
    each_gets_its_own(Shape { workers: 3, queues: 2, ..PLAIN }, 100);
}

/// By the kernel's word: what /sys shows here is the namespace that the test was started in.
#[test]
fn queues_are_counted_in_the_threads_own_namespace() {
    netns::enter();
    ip("link add near numrxqueues 3 numtxqueues 2 type veth peer name far numrxqueues 2 numtxqueues 3");
    let count = |interface| af_xdp::queues(interface).map_err(|e| e.raw_os_error());
    assert_eq!([count("near"), count("far")], [Ok(3), Ok(2)]);
    // A driver that does not tell.
    assert_eq!(count("lo"), Ok(1));
    for gone in ["nowhere", "", "a-name-longer-than-a-device-can-have"] {
        assert_eq!(count(gone), Err(Some(libc::ENODEV)), "{gone}");
    }
}

/// As in a gateway: a frame received on one interface is sent on another, in the same memory.
#[test]
fn two_interfaces_share_a_umem() {
    netns::enter();
    for (device, peer) in [("left", "in"), ("right", "out")] {
        ip(&format!("link add {device} mtu 9000 type veth peer name {peer} mtu 9000"));
        ip(&format!("link set {device} up"));
        ip(&format!("link set {peer} up"));
    }
    let (source, sink) = (Wire::open("in"), Wire::open("out"));
    let pool = FramePool::new(Umem::new(4096, 2048, HugePages::Auto).unwrap().0);
    let workers = handoff::between(2).unwrap();
    let ports = [port("left", 1), port("right", 1)];
    let mut opened = af_xdp::open(pool.umem(), &ports, &workers[0].inboxes(), 256, Copying::Copy).unwrap();
    assert_eq!(opened.told, None, "a copy is what was asked for");
    let mut steering = Steering::load(2).unwrap();
    for (port, queue, worker, socket) in &opened.sockets {
        steering.set_socket(*port, *queue, *worker, socket.fd()).unwrap();
    }
    steering.protect(Prefix { addr: OWN4.into(), len: 32 }, Owner::Kernel).unwrap();
    steering.attach(0, "left", Wanted::Driver).unwrap();
    let mut caches = [pool.cache(), pool.cache()];
    let mut list = ArrayVec::<Frame, BATCH>::new();
    let mut turn = |worker: usize| {
        let [left, right] = &mut opened.ports[worker][..] else { panic!("two ports") };
        left.rx(&mut list, &mut caches[worker]);
        right.tx(&mut list);
        assert!(list.is_empty());
        left.maintain(&mut caches[worker]);
        right.maintain(&mut caches[worker]);
    };
    (0..2).for_each(&mut turn);
    for n in 0..300 {
        let packet = packet(spi(n % 2, 2), n, [80, 1500, 9014][n as usize % 3]);
        source.send(&packet);
        let mut got = None;
        let came = wait(SOON, || {
            (0..2).for_each(&mut turn);
            while let Some(seen) = sink.receive() {
                // The kernel has things to say of its own.
                if seen[12..14] == packet[12..14] {
                    got = Some(seen);
                }
            }
            got.is_some()
        });
        assert!(came && got.as_ref() == Some(&packet), "frame {n}");
    }
    steering.detach().unwrap();
}

/// Worker 0 serves the only queue and sleeps, since all traffic is worker 1's.
#[test]
fn whoever_serves_a_queue_is_woken_before_its_chunks_run_out() {
    let shape = Shape { workers: 2, ..PLAIN };
    let (mut near, mut far) = cable(shape, PLAIN);
    let spi = spi(1, 2);
    let (mut woken, mut received) = (0, 0);
    near.workers[0].bell().announce();
    for burst in 0..200 {
        let packets: Vec<_> = (0..32).map(|i| packet(spi, burst * 32 + i, 80)).collect();
        far.halves[0].send(&packets);
        let got = collect(&mut near.halves[1], packets.len());
        assert!(got.iter().map(|(_, p)| p).eq(&packets), "{} of burst {burst}", got.len());
        received += got.len();
        let bell = near.workers[0].bell();
        let mut fds = [idle::readable(bell.fd())];
        idle::sleep_on(&mut fds, 0);
        if fds[0].revents != 0 {
            bell.awake();
            let server = &mut near.halves[0];
            server.port.maintain(&mut server.cache);
            near.workers[0].bell().announce();
            woken += 1;
        }
    }
    assert_eq!(received, 6400);
    // Half of the ring, shared by two.
    assert_eq!(woken, 6400 / (shape.ring as usize / 4));
    near.close();
    far.close();
}
