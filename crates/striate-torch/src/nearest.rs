use strsim::damerau_levenshtein;

/// A known name must begin with at least so many letters of what was typed to count as its completion.
const SHORTEST_BEGINNING: usize = 3;
/// One slip of the finger is forgiven for every so many letters, and always one.
const LETTERS_PER_SLIP: usize = 4;

/// The known name that somebody who typed `name` meant, if one is near enough: one that begins with it, or that is a few
/// slips away (a letter missing, too much, wrong, or swapped with its neighbour), whatever the case. Of several the nearest,
/// and of equally near ones the first.
///
/// ```
/// use striate_torch::nearest;
/// let known = ["lenet5", "resnet18", "resnet50"];
/// assert_eq!(nearest("ResNet-50", known), Some("resnet50"));
/// assert_eq!(nearest("resnet", known), Some("resnet18"));
/// assert_eq!(nearest("transformer", known), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let letters = name.chars().count();
    let slips = (letters / LETTERS_PER_SLIP).max(1);
    let distance = |known: &&str| {
        let known = known.to_lowercase();
        let completes = letters >= SHORTEST_BEGINNING && known.starts_with(&name);
        let distance = damerau_levenshtein(&known, &name);
        // A single letter is one slip from every other.
        let near = distance <= slips && distance < letters;
        (completes || near).then_some((!completes, distance))
    };
    let near = known.into_iter().filter_map(|known| Some((distance(&known)?, known)));
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] =
        ["lenet5", "lenet5-paper", "alexnet", "googlenet", "googlenet-paper", "resnet18", "wide-resnet50-2", "batch_size"];

    #[test]
    fn slips_and_beginnings_find_what_was_meant() {
        let cases = [
            ("lenet-5", "lenet5"),
            ("lenet6", "lenet5"),
            ("LeNet5", "lenet5"),
            ("lenet5-papre", "lenet5-paper"),
            ("alxenet", "alexnet"),
            ("googlenet-p", "googlenet-paper"),
            ("googlenetpaper", "googlenet-paper"),
            ("goog", "googlenet"),
            ("res", "resnet18"),
            ("wideresnet50", "wide-resnet50-2"),
            ("batchsize", "batch_size"),
        ];
        for (name, meant) in cases {
            assert_eq!(nearest(name, KNOWN), Some(meant), "{name}");
        }
    }

    #[test]
    fn a_name_far_from_all_finds_none() {
        for name in ["nope", "mobilenet", "densenet121", "efficientnet", "vit", "x", "", "lr", "größe"] {
            assert_eq!(nearest(name, KNOWN), None, "{name}");
        }
        assert_eq!(nearest("lenet5", []), None);
    }

    #[test]
    fn two_letters_are_near_by_one() {
        assert_eq!(nearest("c1", ["conv", "c3"]), Some("c3"));
        assert_eq!(nearest("c", ["a", "b"]), None);
    }
}
