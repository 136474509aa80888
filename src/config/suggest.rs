//! "Did you mean …?" for names that do not exist.

/// The candidate most like `name`, when one is close enough to be what was meant.
pub(super) fn closest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    /// Similarity below this is another word, not a slip. 0.8 accepts one or two wrong
    /// letters, a missing plural or a wrong capital in names of our length.
    const SIMILAR: f64 = 0.8;
    let wanted = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let score =
                strsim::normalized_damerau_levenshtein(&wanted, &candidate.to_ascii_lowercase());
            (candidate, score)
        })
        .filter(|(_, score)| *score >= SIMILAR)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate)
}
