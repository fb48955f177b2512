//! Composition: the only folder that knows every other part.
