use strsim::damerau_levenshtein;

/// A known name must begin with at least so many letters of what was typed to count as its completion.
const SHORTEST_BEGINNING: usize = 3;
/// One slip of the finger is forgiven for every so many letters, and always one.
const LETTERS_PER_SLIP: usize = 4;
/// No more names than this are told.
const FEW: usize = 3;

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
    ranked(name, known).into_iter().find(|(how, _)| how.0 < How::Within).map(|(_, known)| known)
}

/// Up to three known names that somebody who typed `name` meant, the likeliest first: as [`nearest`], and then those that it is a part of.
///
/// ```
/// use striate_torch::nearest_few;
/// let known = ["conv1", "relu", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"];
/// assert_eq!(nearest_few("layer1.0.conv3", known), ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"]);
/// assert_eq!(nearest_few("conv2", known), ["conv1", "layer1.0.conv2"]);
/// ```
pub fn nearest_few<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    ranked(name, known).into_iter().map(|(_, known)| known).take(FEW).collect()
}

/// How a known name may be what was meant, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Completed,
    Near,
    Within,
}

/// A longer name, which only a file can have, is like no other: comparing takes time with the product of two lengths.
const LONGEST: usize = 200;

/// The known names that may be meant, the likeliest first.
fn ranked<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<((How, usize), &'a str)> {
    let name = name.to_lowercase();
    let letters = name.chars().count();
    let slips = (letters / LETTERS_PER_SLIP).max(1);
    let rank = |known: &str| {
        let known = known.to_lowercase();
        let distance = damerau_levenshtein(&known, &name);
        let long = letters >= SHORTEST_BEGINNING;
        let how = match () {
            () if long && known.starts_with(&name) => How::Completed,
            // A single letter is one slip from every other.
            () if distance <= slips && distance < letters => How::Near,
            () if long && known.contains(&name) => How::Within,
            () => return None,
        };
        Some((how, distance))
    };
    let known = known.into_iter().filter(|known| known.len().max(name.len()) <= LONGEST);
    let mut ranked: Vec<_> = known.filter_map(|known| Some((rank(known)?, known))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
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
    fn names_that_only_files_have_are_not_compared() {
        let long = "x".repeat(1_000_000);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest("lenet5", [long.as_str(), "lenet5-paper"]), Some("lenet5-paper"));
    }

    #[test]
    fn two_letters_are_near_by_one() {
        assert_eq!(nearest("c1", ["conv", "c3"]), Some("c3"));
        assert_eq!(nearest("c", ["a", "b"]), None);
    }
}
