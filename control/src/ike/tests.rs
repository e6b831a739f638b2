use super::*;
use portcullis_ike::v2::output::Datagram;

const CONNECTION: &str =
    "connections { a { local { auth = psk }\n remote { auth = psk }\n children { net { } } } }";

fn engine(config: &Configuration) -> Engine {
    Engine::new(&mut Context {
        now_ms: 0,
        unix_secs: 0,
        rng: &mut rng(),
        config,
        child_spi: &mut || None,
        child_room: &mut |_| false,
        out: &mut VecDeque::new(),
    })
}

/// Has an engine do something, and its jobs; what it sends.
fn with(
    engine: &mut Engine,
    config: &Configuration,
    does: &dyn Fn(&mut Engine, &mut Context<'_>),
) -> Vec<Datagram> {
    let (mut rng, mut out, mut sent) = (rng(), VecDeque::new(), vec![]);
    let mut cx = Context {
        now_ms: 0,
        unix_secs: 0,
        rng: &mut rng,
        config,
        child_spi: &mut || None,
        child_room: &mut |_| true,
        out: &mut out,
    };
    does(engine, &mut cx);
    while let Some(output) = cx.out.pop_front() {
        match output {
            Output::Job(id, job) => {
                let outcome = job.run(cx.rng);
                engine.done(id, outcome, &mut cx);
            }
            Output::Send(datagram) => sent.push(datagram),
            _ => {}
        }
    }
    sent
}

/// What has begun an IKE SA, the IKE SA, and what has it half open.
pub(super) fn begun(between: (IpAddr, IpAddr)) -> (Engine, Engine, Configuration) {
    let swanctl = swanctl::Configuration::parse(Path::new(FILE), CONNECTION).unwrap();
    let config = configured::configuration(&swanctl, &Credentials::default()).unwrap();
    let (most_half_open, cookies_from) = (10, 10);
    let (most_half_open_of_one, most_ike_sas) = (10, 10);
    let config =
        Configuration { most_half_open, cookies_from, most_half_open_of_one, most_ike_sas, ..config };
    let (mut theirs, mut ours) = (engine(&config), engine(&config));
    let connection = &config.connections[0];
    let sent = with(&mut theirs, &config, &|engine, cx| _ = engine.initiate(connection, None, between, cx));
    let [first] = &sent[..] else { panic!("{sent:?}") };
    let first = Datagram { local: first.peer, peer: first.local, ..first.clone() };
    with(&mut ours, &config, &|engine, cx| engine.receive(&first, cx).unwrap());
    (theirs, ours, config)
}

/// Anybody can send a first message, from any address.
#[test]
fn nothing_is_begun_under_what_somebody_has_half_open() {
    let (theirs, ours, config) = begun(([192, 0, 2, 1].into(), [192, 0, 2, 2].into()));
    let connection = &config.connections[0];
    assert_eq!((ours.half_open(), under(&ours, connection)), (1, None));
    assert!(under(&theirs, connection).is_some(), "what was begun there is its own");
}
