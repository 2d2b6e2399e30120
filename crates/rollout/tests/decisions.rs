//! How rollouts move: stage by stage, each once; never back from a rollback; alike on every replica, whoever decides.

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as Strategy_;
use sluicegate_core::split::Share;
use sluicegate_core::tally::{Counts, Numbers};
use sluicegate_rollout::decide::{self, Kind, shares};
use sluicegate_rollout::record::Record;
use sluicegate_rollout::spec::{Limits, Metric, Mirror, Outcome, Place, Rule, Step, Strategy};
use sluicegate_rollout::{Command, Decision, Evidence, Look, Phase, Spec, State, decide as decide_now};

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}

fn rule(metric: Metric) -> Rule {
    Rule { metric, max: None, min: None, max_increase: None, max_decrease: None, min_samples: 1 }
}

fn canary() -> Spec {
    let step = |weight: &str| Step { weight: share(weight), hold_ms: 1_000, pause: false };
    Spec {
        strategy: Strategy::Canary,
        stable: 1,
        candidate: 2,
        mirror: None,
        steps: vec![step("5%"), step("25%"), step("100%")],
        rules: vec![Rule { max: Some(0.05), ..rule(Metric::ErrorRate) }],
        limits: Limits { error_rate: Some(0.5), latency_p99: None, min_samples: 20 },
        alpha: 0.01,
        on_failure: Outcome::Rollback,
        patience_ms: 10_000,
        on_inconclusive: Outcome::Hold,
    }
}

fn counts(tried: u64, failed: u64) -> Counts {
    Counts { answered: tried - failed, failed, ..Counts::default() }
}

/// What was counted of so many requests of each variant, of which so many failed.
fn seen(now_ms: u64, stable: (u64, u64), candidate: (u64, u64)) -> Look {
    let mut evidence = Evidence::default();
    let numbers =
        Numbers { stable: counts(stable.0, stable.1), candidate: counts(candidate.0, candidate.1), ..Numbers::default() };
    evidence.settle(&numbers);
    Look { now_ms, ready: true, evidence, ..Look::default() }
}

fn begun(spec: &Spec) -> State {
    let state = State::new(spec.digest(), 0);
    let begun = decide_now(spec, &state, &Look { now_ms: 0, ready: true, ..Look::default() }).expect("both are ready");
    assert_eq!(begun.kind, Kind::Started);
    begun.next
}

#[test]
fn a_good_candidate_goes_through_every_stage_and_is_promoted() {
    let spec = canary();
    let mut state = State::new(spec.digest(), 7);
    assert_eq!(state.revision, 7, "it goes on from what was declared before");
    assert_eq!(decide_now(&spec, &state, &seen(5, (0, 0), (0, 0)).not_ready()), None, "nobody is asked before both are ready");
    assert_eq!(shares(&spec, &state).0, Share::NONE);
    let mut kinds = Vec::new();
    let mut seen_shares = Vec::new();
    for now in 0..40 {
        let look = seen(now * 500, (10_000, 10), (5_000, 5));
        if let Some(decision) = decide_now(&spec, &state, &look) {
            kinds.push(decision.kind);
            state = decision.next;
            seen_shares.push(shares(&spec, &state).0.to_string());
        }
    }
    assert_eq!(kinds, [Kind::Started, Kind::Step, Kind::Step, Kind::Promoted]);
    assert_eq!(seen_shares, ["5%", "25%", "100%", "100%"]);
    assert_eq!(state.phase, Phase::Promoted);
}

#[test]
fn a_rule_that_is_broken_takes_the_candidate_out_and_says_why() {
    let spec = canary();
    let decision = decide_now(&spec, &begun(&spec), &seen(10, (23_900, 12), (1_204, 141))).expect("11.7 % is more than 5 %");
    assert_eq!((decision.kind, decision.next.phase), (Kind::RolledBack, Phase::RolledBack));
    let expected =
        "error_rate: the candidate failed 141 of 1204 requests (11.71 %), stable 12 of 23900 (0.05 %) (wanted: at most 0.05)";
    assert_eq!(decision.sentence, expected);
    assert_eq!(shares(&spec, &decision.next), (Share::NONE, Share::NONE));
}

#[test]
fn to_be_worse_at_all_is_enough_where_nothing_more_is_allowed() {
    let mut spec = canary();
    spec.rules = vec![Rule { max_increase: Some(0.0), ..rule(Metric::ErrorRate) }];
    let decision = decide_now(&spec, &begun(&spec), &seen(10, (19_000, 190), (1_000, 60))).expect("6 % beside 1 %");
    assert_eq!(decision.kind, Kind::RolledBack);
    assert!(decision.sentence.contains("evidence that it is worse: e = "), "{}", decision.sentence);
    assert_eq!(decide_now(&spec, &begun(&spec), &seen(10, (19_000, 190), (1_000, 12))), None);
}

#[test]
fn a_hard_limit_waits_for_nobody() {
    let spec = canary();
    let mut look = seen(1, (400, 0), (21, 21));
    look.recent = look.evidence.numbers.clone();
    let decision = decide_now(&spec, &begun(&spec), &look).expect("beyond the limit");
    assert!(decision.sentence.starts_with("limit: the candidate failed 21 of its last 21 requests"), "{}", decision.sentence);
    look.recent.candidate = counts(21, 12);
    look.evidence = Evidence::default();
    assert_eq!(decide_now(&spec, &begun(&spec), &look), None, "12 of 21 do not show more than a half");
    look.recent.candidate = counts(19, 19);
    look.evidence = Evidence::default();
    assert_eq!(decide_now(&spec, &begun(&spec), &look), None, "too few to be a limit");
}

#[test]
fn a_candidate_as_good_as_stable_passes_where_nothing_more_is_allowed() {
    let spec = Spec { rules: vec![Rule { max_increase: Some(0.0), ..rule(Metric::ErrorRate) }], ..canary() };
    for (stable, candidate) in [(0, 0), (1_900, 100), (1_900, 90)] {
        let look = seen(1_000, (190_000, stable), (10_000, candidate));
        let on = decide_now(&spec, &begun(&spec), &look).map(|decision| decision.kind);
        assert_eq!(on, Some(Kind::Step), "{candidate} failures of 10,000 beside {stable} of 190,000");
    }
    // Neither shown to be worse, nor without a sign of it.
    assert_eq!(decide_now(&spec, &begun(&spec), &seen(1_000, (190_000, 1_900), (10_000, 125))), None);
    assert_eq!(decide_now(&spec, &begun(&spec), &seen(1_000, (190_000, 0), (0, 0))), None, "nobody asked it");
}

#[test]
fn a_shadow_that_fails_disagrees() {
    let mirror = Some(Mirror { share: Share::ALL, hold_ms: Some(1_000) });
    for metric in [Metric::Disagreement, Metric::Difference] {
        let spec = Spec { mirror, rules: vec![Rule { max: Some(0.05), ..rule(metric) }], ..canary() };
        let with = |compared: u64, failed: u64| {
            let mut numbers = Numbers::default();
            (numbers.shadow.compared, numbers.shadow.failed, numbers.shadow.differences) = (compared, failed, vec![compared]);
            let mut evidence = Evidence::default();
            evidence.settle(&numbers);
            let look = Look { now_ms: 1_000, ready: true, evidence, ..Look::default() };
            decide_now(&spec, &begun(&spec), &look).map(|decision| decision.kind)
        };
        assert_eq!(with(0, 500), Some(Kind::RolledBack), "it answers nothing");
        assert_eq!(with(900, 100), Some(Kind::RolledBack));
        assert_eq!(with(2_000, 0), Some(Kind::Step));
    }
}

#[test]
fn callers_who_stay_away_are_no_fault_of_the_candidate() {
    let spec = Spec { rules: vec![Rule { min: Some(5.0), ..rule(Metric::Throughput) }], ..canary() };
    let asked = |tried| decide_now(&spec, &begun(&spec), &seen(10_000, (500, 0), (tried, 0))).map(|decision| decision.kind);
    assert_eq!(asked(20), None);
    assert_eq!(asked(50), Some(Kind::Step));
}

#[test]
fn what_is_held_for_a_broken_rule_is_not_resumed_to_be_held_again() {
    let spec = Spec { on_failure: Outcome::Hold, ..canary() };
    let look = seen(10, (10_000, 0), (1_000, 200));
    let held = decide_now(&spec, &begun(&spec), &look).expect("it is held");
    assert_eq!(held.kind, Kind::Paused);
    let refused = decide::command(&spec, &held.next, Command::Resume, &look, "ada").expect_err("the rule is broken still");
    assert!(refused.contains("the candidate failed 200 of 1000 requests"), "{refused}");
    assert!(decide::command(&spec, &held.next, Command::Promote, &look, "ada").is_ok());
}

#[test]
fn a_decision_about_answers_without_an_end_is_made_again_from_its_record() {
    let spec = Spec { rules: vec![Rule { max_increase: Some(0.2), ..rule(Metric::Latency(0.99)) }], ..canary() };
    let state = begun(&spec);
    let of = |bucket: usize, answered: u64| {
        let mut times = vec![0; bucket + 1];
        times[bucket] = answered;
        Counts { answered, times, ..Counts::default() }
    };
    let mut evidence = Evidence::default();
    let candidate = of(sluicegate_core::tally::TIMES - 1, 500);
    evidence.settle(&Numbers { stable: of(99, 50_000), candidate, ..Numbers::default() });
    let look = Look { now_ms: 10, ready: true, evidence, ..Look::default() };
    let decision = decide_now(&spec, &state, &look).expect("it takes for ever");
    let record = Record { spec, state, look, command: None, decision };
    let read: Record = serde_json::from_str(&serde_json::to_string(&record).expect("JSON")).expect("the same");
    assert_eq!((read.replay(), read), (Ok(()), record));
}

#[test]
fn what_is_not_known_is_waited_for_and_then_held() {
    let spec = canary();
    let state = begun(&spec);
    let few = |now| seen(now, (40, 0), (2, 0));
    assert_eq!(decide_now(&spec, &state, &few(10_999)), None);
    let held = decide_now(&spec, &state, &few(11_000)).expect("hold and patience are over");
    assert_eq!((held.kind, held.next.phase), (Kind::Paused, Phase::Paused));
    assert!(held.sentence.starts_with("not known in time: error_rate"), "{}", held.sentence);
    for (outcome, kind) in [(Outcome::Rollback, Kind::RolledBack), (Outcome::Promote, Kind::Step)] {
        let spec = Spec { on_inconclusive: outcome, ..canary() };
        assert_eq!(decide_now(&spec, &begun(&spec), &few(11_000)).map(|decision| decision.kind), Some(kind));
    }
}

#[test]
fn who_is_cut_off_may_take_the_candidate_out_and_nothing_else() {
    let spec = canary();
    let good = Look { cut_off: true, ..seen(5_000, (10_000, 10), (5_000, 5)) };
    assert_eq!(decide_now(&spec, &begun(&spec), &good), None);
    let bad = Look { cut_off: true, ..seen(5_000, (10_000, 10), (5_000, 900)) };
    assert_eq!(decide_now(&spec, &begun(&spec), &bad).map(|decision| decision.kind), Some(Kind::RolledBack));
}

#[test]
fn a_person_ends_a_pause_and_a_switch() {
    let blue_green = Spec { strategy: Strategy::BlueGreen, steps: Vec::new(), rules: Vec::new(), ..canary() };
    let state = begun(&blue_green);
    assert_eq!(shares(&blue_green, &state).0, Share::NONE, "warm, and asked by nobody");
    let look = seen(10, (0, 0), (0, 0));
    let waits = decide_now(&blue_green, &state, &look).expect("it waits for a person").next;
    assert_eq!(waits.phase, Phase::Paused);
    let on = decide::command(&blue_green, &waits, Command::Resume, &look, "ada").expect("it goes on");
    assert_eq!((on.kind, shares(&blue_green, &on.next).0), (Kind::Promoted, Share::ALL));
    let back = decide::command(&blue_green, &on.next, Command::Rollback, &look, "ada").expect("back again");
    assert_eq!(back.next.phase, Phase::RolledBack);
    for command in [Command::Promote, Command::Resume, Command::Pause, Command::Rollback] {
        assert!(decide::command(&blue_green, &back.next, command, &look, "ada").is_err(), "{command:?} after a rollback");
    }
}

#[test]
fn a_canary_may_shadow_first_and_a_replacement_asks_nobody() {
    let mirror = Some(Mirror { share: share("20%"), hold_ms: Some(1_000) });
    let spec = Spec { mirror, rules: Vec::new(), ..canary() };
    let state = begun(&spec);
    assert_eq!(shares(&spec, &state), (Share::NONE, share("20%")));
    let next = decide_now(&spec, &state, &seen(1_000, (0, 0), (0, 0))).expect("the first step").next;
    assert_eq!(shares(&spec, &next), (share("5%"), Share::NONE));
    let replace = Spec { strategy: Strategy::Replace, steps: Vec::new(), rules: Vec::new(), ..canary() };
    let done = decide_now(&replace, &begun(&replace), &seen(1, (0, 0), (0, 0))).expect("at once");
    assert_eq!(done.kind, Kind::Promoted);
}

#[test]
fn what_is_declared_wrongly_is_told_with_its_place() {
    let told = |spec: &Spec| -> Vec<String> {
        let path = |places: &[Place]| {
            places
                .iter()
                .map(|place| match place {
                    Place::Key(key) => format!(".{key}"),
                    Place::Index(index) => format!("[{index}]"),
                })
                .collect::<String>()
        };
        spec.check().iter().map(|(places, message)| format!("{}: {message}", path(places))).collect()
    };
    assert_eq!(told(&canary()), [""; 0]);
    let step = |weight: &str| Step { weight: share(weight), hold_ms: 0, pause: false };
    assert_eq!(
        told(&Spec { candidate: 1, alpha: 0.0, steps: vec![step("5%"), step("5%")], ..canary() }),
        [
            ".candidate: expected another version than the stable one, got 1 for both",
            ".alpha: expected more than 0% and at most 50%, got 0%",
            ".steps[1].weight: expected more than the step before it has, which is 5%, got 5%",
        ]
    );
    assert!(told(&Spec { steps: Vec::new(), rules: Vec::new(), ..canary() })[0].starts_with(".steps: expected the steps"));
    let rules = vec![
        rule(Metric::ErrorRate),
        Rule { max: Some(0.1), min: Some(0.2), ..rule(Metric::ErrorRate) },
        Rule { max: Some(0.1), ..rule(Metric::Disagreement) },
        Rule { max_increase: Some(0.1), ..rule(Metric::Drift) },
    ];
    let faults = told(&Spec { rules, ..canary() });
    for (fault, words) in faults.iter().zip([
        "[0]: expected max, min",
        "[1].min: expected at most max",
        "[2].metric: expected a `shadow`",
        "[3]: expected max or min",
    ]) {
        assert!(fault.contains(words), "{fault} has not {words}");
    }
    assert_eq!(faults.len(), 4);
    assert!(Metric::read("eror_rate", None, None).is_err() && Metric::read("latency_p100", None, None).is_err());
    assert_eq!(Metric::read("latency_p99", None, None).map(|metric| metric.name()), Ok("latency_p99".to_owned()));
}

trait NotReady {
    fn not_ready(self) -> Self;
}

impl NotReady for Look {
    fn not_ready(self) -> Self {
        Self { ready: false, ..self }
    }
}

/// Something that happens to one of two replicas.
#[derive(Clone, Debug)]
enum Happens {
    /// It looks, after so many milliseconds, at a candidate that fails so many of 1,000.
    Looks {
        replica: usize,
        later: u64,
        failed: u64,
        ready: bool,
    },
    /// It is cut off from the other, or comes back.
    CutOff(usize, bool),
    Says(usize, Command),
}

fn happens() -> impl Strategy_<Value = Happens> {
    let commands = prop::sample::select(vec![Command::Promote, Command::Rollback, Command::Pause, Command::Resume]);
    prop_oneof![
        12 => (0..2usize, 0..2_000u64, prop::sample::select(vec![0, 0, 0, 0, 0, 2, 200]), prop::bool::weighted(0.9))
            .prop_map(|(replica, later, failed, ready)| Happens::Looks { replica, later, failed, ready }),
        2 => (0..2usize, any::<bool>()).prop_map(|(replica, off)| Happens::CutOff(replica, off)),
        1 => (0..2usize, commands).prop_map(|(replica, command)| Happens::Says(replica, command)),
    ]
}

/// What is kept: a row that is written by whoever knew the last one.
#[derive(Default)]
struct Kept {
    row: Option<State>,
    written: Vec<Decision>,
}

impl Kept {
    fn advance(&mut self, before: &State, decision: &Decision) -> bool {
        if self.row.as_ref().map_or(0, |row| row.revision) != before.revision {
            return false;
        }
        self.row = Some(decision.next.clone());
        self.written.push(decision.clone());
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_stage_is_skipped_or_done_twice_and_no_rollback_undone(script in prop::collection::vec(happens(), 1..60), stale in any::<u64>()) {
        let spec = canary();
        let mut kept = Kept::default();
        let mut mine = [State::new(spec.digest(), 0), State::new(spec.digest(), 0)];
        let mut cut = [false; 2];
        let mut ever_back = [false; 2];
        let mut now = 0;
        for (place, what) in script.into_iter().enumerate() {
            let (replica, decision) = match what {
                Happens::CutOff(replica, off) => {
                    cut[replica] = off;
                    continue;
                }
                Happens::Looks { replica, later, failed, ready } => {
                    now += later;
                    if !cut[replica] && let Some(row) = &kept.row {
                        // A row may be read a moment before another writes it: then what is decided is not written.
                        if !(stale >> (place % 64)).is_multiple_of(3) || mine[replica].phase == Phase::RolledBack {
                            mine[replica] = mine[replica].join(row);
                        }
                    }
                    let look = Look { cut_off: cut[replica], ready, ..seen(now, (10_000, 10), (1_000, failed)) };
                    (replica, decide_now(&spec, &mine[replica], &look))
                }
                Happens::Says(replica, command) => {
                    let look = Look { cut_off: cut[replica], ..seen(now, (0, 0), (0, 0)) };
                    (replica, (!cut[replica]).then(|| decide::command(&spec, &mine[replica], command, &look, "ada").ok()).flatten())
                }
            };
            if let Some(decision) = decision {
                if cut[replica] {
                    prop_assert_eq!(decision.next.phase, Phase::RolledBack, "cut off, it may only become safer");
                    mine[replica] = decision.next;
                } else if kept.advance(&mine[replica], &decision) {
                    mine[replica] = decision.next;
                } else if let Some(row) = &kept.row {
                    mine[replica] = mine[replica].join(row);
                }
            }
            ever_back[replica] |= mine[replica].phase == Phase::RolledBack;
            prop_assert!(!ever_back[replica] || mine[replica].phase == Phase::RolledBack, "a rollback was undone");
        }
        let mut stage = None;
        for written in &kept.written {
            match (written.kind, stage) {
                (Kind::Started, None) => stage = Some(0),
                (Kind::Step, Some(before)) => {
                    prop_assert_eq!(written.next.stage, before + 1);
                    stage = Some(before + 1);
                }
                (Kind::Started | Kind::Step, _) => prop_assert!(false, "{:?} in stage {stage:?}", written.kind),
                _ => {}
            }
        }
        prop_assert!(kept.written.windows(2).all(|two| two[1].next.revision == two[0].next.revision + 1));
    }

    #[test]
    fn a_decision_is_made_again_from_its_record(failed in 0..300u64, later in 0..20_000u64, by in "[a-z ]{1,12}") {
        let spec = canary();
        let state = begun(&spec);
        let look = seen(later, (10_000, 10), (1_000, failed));
        let mut records = Vec::new();
        if let Some(decision) = decide_now(&spec, &state, &look) {
            records.push(Record { spec: spec.clone(), state: state.clone(), look: look.clone(), command: None, decision });
        }
        let decision = decide::command(&spec, &state, Command::Pause, &look, &by).expect("it runs");
        records.push(Record { spec, state, look, command: Some(Command::Pause), decision });
        for record in records {
            let text = serde_json::to_string(&record).expect("JSON");
            let read: Record = serde_json::from_str(&text).expect("the same");
            prop_assert_eq!(&read, &record);
            prop_assert_eq!(read.replay(), Ok(()));
            let mut forged = read;
            forged.decision.next.stage += 1;
            prop_assert!(forged.replay().is_err());
        }
    }

    #[test]
    fn what_two_replicas_agree_upon_does_not_hang_on_who_speaks_first(phases in prop::array::uniform2(0..4usize), revisions in prop::array::uniform2(0..5u64)) {
        let state = |place: usize| State {
            phase: Phase::ALL[phases[place]],
            revision: revisions[place],
            reason: format!("{}/{}", phases[place], revisions[place]),
            ..State::new("d".to_owned(), 0)
        };
        let (one, other) = (state(0), state(1));
        prop_assert_eq!(one.join(&one), one.clone());
        prop_assert_eq!(one.join(&other).join(&other), one.join(&other));
        if one.revision != other.revision {
            prop_assert_eq!(one.join(&other).phase, other.join(&one).phase);
        }
        let is_back = |state: &State| state.phase == Phase::RolledBack;
        prop_assert_eq!(is_back(&one.join(&other)), is_back(&one) || is_back(&other));
    }
}
