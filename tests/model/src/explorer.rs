//! Walks through every state that a machine can come to, the nearest first, and says of the first bad one how it came about.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    hash::Hash,
    rc::Rc,
};

/// Something that does one step after the other.
pub trait Machine {
    /// All that matters of it.
    type State: Clone + Eq + Hash + Debug;
    /// A step.
    type Action: Clone + Debug;

    /// How it begins.
    fn start(&self) -> Self::State;

    /// What may happen next.
    fn actions(&self, state: &Self::State) -> Vec<Self::Action>;

    /// What comes of it.
    fn next(&self, state: &Self::State, action: &Self::Action) -> Self::State;

    /// What must hold in every state.
    ///
    /// # Errors
    /// What does not.
    fn check(&self, state: &Self::State) -> Result<(), String>;
}

/// Every state is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explored {
    /// Number of states.
    pub states: usize,
    /// Number of steps from one to another.
    pub steps: usize,
    /// Steps to the furthest of them.
    pub depth: usize,
}

/// A state that should not be, and the shortest way to it.
pub struct Counterexample<M: Machine> {
    /// What is wrong.
    pub broken: String,
    /// The steps.
    pub path: Vec<M::Action>,
    /// The state.
    pub state: M::State,
}

impl<M: Machine> Debug for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after", self.broken)?;
        self.path.iter().try_for_each(|action| writeln!(f, "  {action:?}"))?;
        write!(f, "{:#?}", self.state)
    }
}

/// Walks through every state.
///
/// # Errors
/// [`Counterexample`].
pub fn explore<M: Machine>(machine: &M) -> Result<Explored, Box<Counterexample<M>>> {
    let mut walk = Walk::<M> { known: HashMap::new(), seen: Vec::new() };
    walk.see(machine.start(), None);
    let (mut at, mut steps, mut depth) = (0, 0, 0);
    while let Some(Seen { state, depth: far, .. }) = walk.seen.get(at) {
        let (state, far) = (Rc::clone(state), *far);
        depth = depth.max(far);
        if let Err(broken) = machine.check(&state) {
            return Err(Box::new(Counterexample { broken, path: walk.path_to(at), state: (*state).clone() }));
        }
        for action in machine.actions(&state) {
            steps += 1;
            walk.see(machine.next(&state, &action), Some((at, action)));
        }
        at += 1;
    }
    Ok(Explored { states: walk.seen.len(), steps, depth })
}

struct Walk<M: Machine> {
    known: HashMap<Rc<M::State>, usize>,
    seen: Vec<Seen<M>>,
}

struct Seen<M: Machine> {
    state: Rc<M::State>,
    depth: usize,
    from: Option<(usize, M::Action)>,
}

impl<M: Machine> Walk<M> {
    fn see(&mut self, state: M::State, from: Option<(usize, M::Action)>) {
        if self.known.contains_key(&state) {
            return;
        }
        let state = Rc::new(state);
        let depth = from.as_ref().map_or(0, |(before, _)| self.seen[*before].depth + 1);
        self.known.insert(Rc::clone(&state), self.seen.len());
        self.seen.push(Seen { state, depth, from });
    }

    fn path_to(&self, mut at: usize) -> Vec<M::Action> {
        let mut path = Vec::new();
        while let Some((before, action)) = &self.seen[at].from {
            path.push(action.clone());
            at = *before;
        }
        path.reverse();
        path
    }
}
