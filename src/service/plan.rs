//! From a request to what is sent: detect, rule, treat.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Scope, Verdicts};
use super::exchange::Exchange;
use super::guard::{Failure, Guard};
use super::judge::Served;
use super::record::{Recorder, Verdict};
use super::stops::Letters;
use crate::backend::{BackendError, Capabilities};
use crate::policy::{
    AnswerStyle, Mode, OnError, OnHit, Policy, Probabilities, Ruling, TreatmentSetting,
};
use crate::text::Values;
use crate::treat::{Case, Treated, needs, never_knew, treat};
use crate::types::{CorruptionFunction, Evidence, Finish, Place, Request, ToolChoice};
use crate::window::{Copies, Owners, Patterns, Replacement};

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "one per request, taken apart where it is made")]
pub(super) enum Prepared {
    /// It is sent.
    Request {
        request: Request,
        continuation: Option<String>,
        /// Whether a policy changed it.
        treated: bool,
        /// What the reply is watched for.
        window: Watched,
        /// The topics that they belong to, as a label.
        topics: String,
        /// What becomes of an untreated reply with a hit.
        on_hit: OnHit,
        /// Of the client's own prompt.
        prompt_bytes: usize,
    },
    /// It is answered here.
    Reply {
        text: String,
        finish: Finish,
        /// Whether it is to take the time that the model would have taken.
        paced: bool,
        prompt_bytes: usize,
        on_hit: OnHit,
    },
}

/// What a reply is watched for.
pub(super) struct Watched {
    /// What is replaced.
    pub(super) patterns: Arc<Patterns>,
    /// What must not be copied.
    pub(super) copies: Vec<Arc<dyn Copies>>,
    /// What may take the place of the rest of a reply.
    pub(super) ending: String,
}

/// The guards that are for a model, and what its backend can do.
pub(super) struct Plan<'a> {
    guards: Vec<&'a Guard>,
    served: Served<'a>,
    capabilities: Capabilities,
    recorder: &'a Recorder,
    verdicts: &'a Verdicts,
    scope: Scope,
}

/// What treatments put into a request, to be undone in its reply.
#[derive(Default)]
struct Undo<'a> {
    /// Entities of each policy whose names are put back.
    names: Vec<(&'a Guard, BTreeSet<usize>)>,
    /// What stood for names in other writings or misspelt, and for values.
    writings: Vec<Replacement>,
}

/// A request between two treatments.
struct State<'a> {
    request: Request,
    continuation: Option<String>,
    restore: Undo<'a>,
    /// Texts have changed since the evidence was taken.
    rewritten: bool,
}

/// An enforced ruling.
struct Ruled<'a> {
    guard: &'a Guard,
    /// In the client's texts.
    evidence: Vec<Evidence>,
    /// The same in texts with other values, where there are any.
    moved: Option<Vec<Evidence>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        guards: &'a [Guard],
        served: Served<'a>,
        recorder: &'a Recorder,
        (verdicts, scope): (&'a Verdicts, Scope),
    ) -> Self {
        let guards = guards.iter().filter(|it| it.policy.applies_to(served.model)).collect();
        let capabilities = served.backend.capabilities();
        Self { guards, served, capabilities, recorder, verdicts, scope }
    }

    /// Rules on a request and treats it. `again` after its reply had a hit: then the policies that ask
    /// for a restart treat it whatever they see.
    pub(super) async fn prepare(
        &self,
        mut request: Request,
        mut continuation: Option<String>,
        again: bool,
    ) -> Result<Prepared, BackendError> {
        let since = Instant::now();
        let original = texts(&request, continuation.as_deref());
        let called = asks_for_a_call(&request);
        let mut ruled = self.rule(&original, since, called, again).await?;
        let seen = names_seen(&ruled);
        let treated = !ruled.is_empty();
        let never = |it: &Guard| it.policy.probabilities == Probabilities::Never;
        if treated || self.enforced().any(never) {
            // Both look past the text: one at what the model would rather say, the other forces it.
            request.logprobs = None;
            request.sampling.logit_bias.clear();
        }
        // A finished reply makes the other treatments pointless; corruption comes last, because its
        // spans are those of the final text.
        ruled.sort_by_key(|it| self.stage(&it.guard.policy, called));
        // The strictest rules: one reply has one window.
        let on_hit = self.enforced().map(|it| it.policy.on_hit).max().unwrap_or_default();
        let prompt_bytes = request.texts().iter().map(|it| it.len()).sum();
        let writings = self.exchange(&mut request, &mut continuation, &mut ruled);
        let restore = Undo { writings, ..Undo::default() };
        let mut state = State { request, continuation, restore, rewritten: false };
        for Ruled { guard, evidence, moved } in ruled {
            let policy = &*guard.policy;
            let (texts, seen) = (original.as_slice(), evidence.as_slice());
            let verdict = Verdict { policy, texts, evidence: seen, since };
            let (name, treated) = if state.rewritten {
                let found = self.look_again(guard, &state).await;
                self.apply(policy, &found, &state)
            } else {
                self.apply(policy, moved.as_ref().unwrap_or(&evidence), &state)
            };
            self.recorder.treated(&verdict, name);
            match treated {
                Treated::Reply { text, finish, paced } => {
                    return Ok(Prepared::Reply { text, finish, paced, prompt_bytes, on_hit });
                }
                Treated::Request { request, continuation, restore } => {
                    state.rewritten |= request.input != state.request.input
                        || request.tools != state.request.tools
                        || continuation != state.continuation;
                    state.request = request;
                    state.continuation = continuation;
                    if !restore.entities.is_empty() {
                        state.restore.names.push((guard, restore.entities));
                    }
                    state.restore.writings.extend(restore.writings);
                }
            }
        }
        let patterns = self.patterns(state.restore, &seen);
        let copies = self.enforced().flat_map(|it| it.copies.iter().cloned()).collect();
        let seed = self.enforced().map(|it| it.policy.seed).next().unwrap_or_default();
        let ending = never_knew(seed, &state.request);
        let State { mut request, continuation, .. } = state;
        self.keep_harmless_stops(&mut request.stop);
        let (patterns, topics) = (Arc::new(patterns), self.topics());
        Ok(Prepared::Request {
            request,
            continuation,
            treated,
            window: Watched { patterns, copies, ending },
            topics,
            on_hit,
            prompt_bytes,
        })
    }

    /// Tells the facts of a prompt with other values, where a surrogate will stand for somebody in it.
    /// What is to be put back.
    fn exchange(
        &self,
        request: &mut Request,
        continuation: &mut Option<String>,
        ruled: &mut [Ruled<'_>],
    ) -> Vec<Replacement> {
        let called = asks_for_a_call(request);
        let named = |it: &&Ruled<'_>| {
            let first = self.possible(&it.guard.policy, called).first().copied();
            let named = |it: &Evidence| it.entity.is_some() && matches!(it.place, Place::Text(_));
            first.is_some_and(puts_surrogates) && it.evidence.iter().any(named)
        };
        let listed = |it: &&Ruled<'_>| !it.guard.values.is_empty() && named(it);
        let guards: Vec<&Guard> = ruled.iter().filter(listed).map(|it| it.guard).collect();
        let values = match guards.as_slice() {
            [] => return Vec::new(),
            [one] => Cow::Borrowed(&*one.values),
            // No two values may have one image.
            all => {
                let kinds = all.iter().flat_map(|it| it.policy.values.iter());
                Cow::Owned(Values::new(kinds.map(Vec::as_slice)))
            }
        };
        let seed = guards[0].policy.seed;
        let evidence = ruled.iter().flat_map(|it| &it.evidence);
        let told = Exchange::of(values, request, continuation.as_deref(), evidence, seed);
        let Some(exchange) = told else { return Vec::new() };
        for it in ruled.iter_mut() {
            it.moved = Some(it.evidence.iter().map(|it| exchange.moved(it)).collect());
        }
        let messages = request.input.texts_mut().into_iter().enumerate();
        let messages = messages.map(|(index, text)| (Place::Text(index), text));
        for (place, text) in
            messages.chain(continuation.as_mut().map(|it| (Place::Continuation, it)))
        {
            if let Some(written) = exchange.text(place) {
                written.clone_into(text);
            }
        }
        request.stop = request.stop.iter().filter_map(|it| exchange.stop(it)).collect();
        exchange.restored()
    }

    /// Asks every policy; keeps what is to be carried out.
    async fn rule(
        &self,
        texts: &Arc<Vec<(Place, String)>>,
        since: Instant,
        called: bool,
        again: bool,
    ) -> Result<Vec<Ruled<'a>>, BackendError> {
        if self.guards.is_empty() {
            return Ok(Vec::new());
        }
        let looks = self
            .guards
            .iter()
            .map(|it| it.inspect(texts, self.recorder, (self.verdicts, self.scope), self.served));
        let found = futures::future::join_all(looks).await;
        let mut ruled = Vec::new();
        for (guard, found) in self.guards.iter().copied().zip(found) {
            let policy = &guard.policy;
            let ruling = match found {
                Ok(evidence) => policy.decide(&evidence),
                Err(source) => self.failed(policy, source)?,
            };
            let ruling = match ruling {
                Ruling::Pass if again && policy.on_hit == OnHit::Restart => {
                    Ruling::Treat { evidence: Vec::new() }
                }
                ruling => ruling,
            };
            match ruling {
                Ruling::Treat { evidence } if policy.mode == Mode::Enforce => {
                    ruled.push(Ruled { guard, evidence, moved: None });
                }
                Ruling::Treat { evidence } => {
                    let would =
                        self.possible(policy, called).first().map_or("answer", |it| it.name());
                    let verdict = Verdict { policy, texts, evidence: &evidence, since };
                    self.recorder.treated(&verdict, would);
                }
                Ruling::Pass => {}
            }
        }
        Ok(ruled)
    }

    /// What a policy says when its detector failed.
    fn failed(&self, policy: &Policy, source: Failure) -> Result<Ruling, BackendError> {
        self.recorder.failed(policy, source.as_ref());
        match policy.on_error {
            OnError::Treat => Ok(Ruling::Treat { evidence: Vec::new() }),
            OnError::Pass => Ok(Ruling::Pass),
            // A policy on trial must not turn requests away.
            OnError::Refuse if policy.mode == Mode::Shadow => Ok(Ruling::Pass),
            OnError::Refuse => Err(BackendError::GuardFailed { source }),
        }
    }

    /// Evidence in texts that an earlier treatment rewrote. The ruling stands whatever is found.
    async fn look_again(&self, guard: &Guard, state: &State<'_>) -> Vec<Evidence> {
        let texts = texts(&state.request, state.continuation.as_deref());
        let kept = (self.verdicts, self.scope);
        let found = guard.inspect(&texts, self.recorder, kept, self.served).await;
        match found.map(|it| guard.policy.decide(&it)) {
            Ok(Ruling::Treat { evidence }) => evidence,
            Ok(Ruling::Pass) | Err(_) => Vec::new(),
        }
    }

    /// The guards that act.
    fn enforced(&self) -> impl Iterator<Item = &'a Guard> {
        self.guards.iter().copied().filter(|it| it.policy.mode == Mode::Enforce)
    }

    /// The topics that a reply's window watches for.
    fn topics(&self) -> String {
        self.enforced().map(|it| it.policy.topic.as_str()).collect::<Vec<_>>().join("+")
    }

    /// The treatments of a policy that the backend can carry out, in the order in which they are tried.
    /// Where the client asks for a call, an answer in words would tell, and so comes last.
    fn possible<'p>(&self, policy: &'p Policy, called: bool) -> Vec<&'p TreatmentSetting> {
        let carries_out = |it: &&TreatmentSetting| {
            let needs = needs(it);
            (self.capabilities.embeddings || !needs.embeddings)
                && (self.capabilities.offsets || !needs.offsets)
                && (self.capabilities.scoring || !needs.scoring)
        };
        let mut settings: Vec<_> = policy.treatment.iter().filter(carries_out).collect();
        settings.sort_by_key(|it| called && answers_in_words(it));
        settings
    }

    fn stage(&self, policy: &Policy, called: bool) -> u8 {
        match self.possible(policy, called).first() {
            None | Some(TreatmentSetting::Answer { .. }) => 0,
            Some(
                TreatmentSetting::Alias
                | TreatmentSetting::Prefix { .. }
                | TreatmentSetting::InContext(_)
                | TreatmentSetting::Offset(_),
            ) => 1,
            Some(TreatmentSetting::Corrupt { .. }) => 2,
        }
    }

    /// The first treatment that the backend can carry out and that changes something; without one,
    /// the answer of a model that never knew.
    fn apply(
        &self,
        policy: &Policy,
        evidence: &[Evidence],
        state: &State<'_>,
    ) -> (&'static str, Treated) {
        let called = asks_for_a_call(&state.request);
        for setting in self.possible(policy, called) {
            let rewrites = matches!(
                setting,
                TreatmentSetting::Alias
                    | TreatmentSetting::Prefix { .. }
                    | TreatmentSetting::InContext(_)
            );
            if rewrites && state.request.corruption.is_some() {
                // It would move the spans of the corruption.
                continue;
            }
            let case = Case {
                policy,
                evidence,
                request: state.request.clone(),
                continuation: state.continuation.clone(),
                names_somebody: &|it| self.enforced().any(|guard| guard.names_somebody(it)),
            };
            match treat(setting, case) {
                Ok(treated) => return (setting.name(), treated),
                Err(error) => tracing::debug!(topic = policy.topic, %error, "treatment skipped"),
            }
        }
        let text = never_knew(policy.seed, &state.request);
        ("answer", Treated::Reply { text, finish: Finish::Stop, paced: true })
    }

    /// Drops stop texts that could tell, by ending a reply, whether the model was about to write a
    /// name or a surrogate.
    fn keep_harmless_stops(&self, stops: &mut Vec<String>) {
        if stops.is_empty() {
            return;
        }
        let entities = self.enforced().flat_map(|it| it.policy.entities.iter());
        let names = entities.flat_map(|it| it.spellings().chain([it.surrogate.as_str()]));
        let names: Vec<Letters> = names.map(Letters::of).filter(Letters::tell).collect();
        stops.retain(|stop| {
            let stop = Letters::of(stop);
            !stop.tell() || !names.iter().any(|it| it.contain(&stop) || stop.contain(it))
        });
    }

    /// What is put back, and every other name of an enforced policy. A name that the client wrote is
    /// no secret, and a reply that turned it into another one would give the guard away.
    fn patterns(&self, undo: Undo<'_>, seen: &Seen) -> Patterns {
        let mut patterns = Patterns::default();
        for (guard, entities) in &undo.names {
            patterns.add(Arc::clone(&guard.restorations), Owners::Only(entities.clone()));
        }
        patterns.extend(undo.writings);
        for guard in self.enforced() {
            let mut exempt = seen.get(&guard.policy.topic).cloned().unwrap_or_default();
            for (by, entities) in &undo.names {
                if by.policy.topic == guard.policy.topic {
                    exempt.extend(entities);
                } else {
                    let back: Vec<&str> = entities.iter().map(|it| by.name(*it)).collect();
                    exempt.extend(guard.entities_named(&back));
                }
            }
            patterns.add(Arc::clone(&guard.redactions), Owners::AllBut(exempt));
        }
        patterns
    }
}

/// Whether an untreated model would have to call a function.
fn asks_for_a_call(request: &Request) -> bool {
    matches!(request.tools.choice, Some(ToolChoice::Required | ToolChoice::Function(_)))
}

fn answers_in_words(setting: &TreatmentSetting) -> bool {
    let TreatmentSetting::Answer { style, .. } = setting else { return false };
    matches!(style, AnswerStyle::NeverKnew | AnswerStyle::Refusal)
}

/// Whether a treatment puts a surrogate in the place of a name.
fn puts_surrogates(setting: &TreatmentSetting) -> bool {
    let substitute = CorruptionFunction::Substitute;
    match setting {
        TreatmentSetting::Alias => true,
        TreatmentSetting::Corrupt { function } => *function == substitute,
        _ => false,
    }
}

/// Entities that the client named, by topic.
type Seen = HashMap<String, BTreeSet<usize>>;

fn names_seen(ruled: &[Ruled<'_>]) -> Seen {
    let mut seen = Seen::new();
    for it in ruled {
        let entities = it.evidence.iter().filter_map(|it| it.entity);
        seen.entry(it.guard.policy.topic.clone()).or_default().extend(entities);
    }
    seen
}

/// In the order in which the model reads them, because a name may go on in the next one.
fn texts(request: &Request, continuation: Option<&str>) -> Arc<Vec<(Place, String)>> {
    let all = request.texts();
    let ordered = request.reading_order().into_iter();
    let mut texts: Vec<(Place, String)> =
        ordered.map(|index| (Place::Text(index), all[index].to_owned())).collect();
    texts.extend(continuation.map(|it| (Place::Continuation, it.to_owned())));
    Arc::new(texts)
}
