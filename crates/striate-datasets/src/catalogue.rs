//! What is known of each dataset: names, sources, checksums, licences.

use crate::DatasetError;
use striate_torch::nearest;

/// A dataset that [`load`](crate::load) knows.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The name to load it by.
    pub name: &'static str,
    /// Its full name.
    pub title: &'static str,
    /// Examples to train with, and to test with.
    pub examples: [usize; 2],
    /// The shape of every image, `[C, H, W]`.
    pub shape: [i64; 3],
    /// Where it is described.
    pub homepage: &'static str,
    /// The licence it is given under.
    pub licence: &'static str,
    /// The paper to cite.
    pub citation: &'static str,
    /// About how many megabytes a download has; 0 for what is compiled in.
    pub megabytes: u32,
    pub(crate) class_names: &'static str,
    /// The customary normalisation, if there is one: the training images' mean and standard deviation, to four digits.
    pub(crate) mean_std: Option<(f64, f64)>,
    pub(crate) source: Source,
}

impl Entry {
    /// The classes' names, in the order of the labels.
    pub fn classes(&self) -> Vec<String> {
        self.class_names.split(',').map(str::to_owned).collect()
    }
}

#[derive(Debug)]
pub(crate) enum Source {
    Embedded,
    Idx(IdxSource),
}

/// Four files in IDX format.
#[derive(Debug)]
pub(crate) struct IdxSource {
    /// The folder's name in the cache and on a mirror.
    pub(crate) folder: &'static str,
    /// What the names of the training files and of the test files start with.
    pub(crate) parts: [&'static str; 2],
    pub(crate) origin: Origin,
    /// A Debian package that has the files.
    pub(crate) package: Option<Package>,
    /// Whether rows and columns are exchanged in the files.
    pub(crate) transposed: bool,
    /// The number of the first class in the files.
    pub(crate) first_label: u8,
}

impl IdxSource {
    /// What torchvision calls the folder that it keeps the files in.
    pub(crate) fn torchvision(&self) -> &'static str {
        match self.folder {
            "mnist" => "MNIST",
            "fashion-mnist" => "FashionMNIST",
            "kmnist" => "KMNIST",
            "emnist" => "EMNIST",
            other => other,
        }
    }

    /// Training images and labels, test images and labels, without `.gz`.
    pub(crate) fn files(&self) -> [String; 4] {
        let [train, test] = self.parts;
        let (images, labels) = ("images-idx3-ubyte", "labels-idx1-ubyte");
        [format!("{train}-{images}"), format!("{train}-{labels}"), format!("{test}-{images}"), format!("{test}-{labels}")]
    }
}

/// Where the files come from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Each file by itself, with `.gz`, under addresses that end in `/`, in the order of [`IdxSource::files`].
    Files { mirrors: &'static [&'static str], checksums: [Checksum; 4] },
    /// A zip archive in which the files lie, with `.gz`.
    Archive { urls: &'static [&'static str], file: &'static str, checksum: Checksum },
}

/// A package of the system's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// The folder in which it has the files, seen from the root.
    pub(crate) folder: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Checksum {
    /// MD5 of the file as it is.
    Md5(&'static str),
    /// SHA-256 of what the gzip file holds, which does not depend on who compressed it.
    ContentSha256(&'static str),
}

/// Every dataset that [`load`](crate::load) knows.
pub fn catalogue() -> &'static [Entry] {
    &CATALOGUE
}

/// The dataset of a name.
///
/// # Errors
///
/// An unknown name; the message has the nearest one.
pub fn find(name: &str) -> Result<&'static Entry, DatasetError> {
    let names = || CATALOGUE.iter().map(|entry| entry.name);
    CATALOGUE.iter().find(|entry| entry.name == name).ok_or_else(|| DatasetError::UnknownName {
        name: name.to_owned(),
        nearest: nearest(name, names()).map(str::to_owned),
        known: names().collect(),
    })
}

const GREY_28: [i64; 3] = [1, 28, 28];
const DIGITS: &str = "0,1,2,3,4,5,6,7,8,9";
const LETTERS: &str = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z";
const MERGED: &str = "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,a,b,d,e,f,g,h,n,q,r,t";
const BY_CLASS: &str = "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,\
                        a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z";

static CATALOGUE: [Entry; 10] = [
    Entry {
        name: "digits",
        title: "Optical Recognition of Handwritten Digits",
        examples: [898, 899],
        shape: [1, 8, 8],
        homepage: "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence: "CC BY 4.0",
        citation: "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, \
                   doi:10.24432/C50P49",
        megabytes: 0,
        class_names: DIGITS,
        mean_std: None,
        source: Source::Embedded,
    },
    Entry {
        name: "mnist",
        title: "MNIST",
        examples: [60_000, 10_000],
        shape: GREY_28,
        homepage: "http://yann.lecun.com/exdb/mnist/",
        licence: "CC BY-SA 3.0",
        citation: "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, \
                   Proceedings of the IEEE 86(11), 1998",
        megabytes: 12,
        class_names: DIGITS,
        mean_std: Some((0.1307, 0.3081)),
        source: mnist_like(
            "mnist",
            &["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"],
            [
                Checksum::Md5("f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                Checksum::Md5("d53e105ee54ea40749a09fcbcd1e9432"),
                Checksum::Md5("9fb629c4189551a2d022fa330f9573f3"),
                Checksum::Md5("ec29112dd5afa0611ce80d1b7f02629c"),
            ],
            None,
        ),
    },
    Entry {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        examples: [60_000, 10_000],
        shape: GREY_28,
        homepage: "https://github.com/zalandoresearch/fashion-mnist",
        licence: "MIT",
        citation: "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning \
                   Algorithms, 2017, arXiv:1708.07747",
        megabytes: 31,
        class_names: "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
        mean_std: Some((0.2860, 0.3530)),
        source: mnist_like(
            "fashion-mnist",
            &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
            [
                Checksum::ContentSha256("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
                Checksum::ContentSha256("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
                Checksum::ContentSha256("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
                Checksum::ContentSha256("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
            ],
            Some(Package { name: "dataset-fashion-mnist", folder: "usr/share/datasets/fashion-mnist" }),
        ),
    },
    Entry {
        name: "kmnist",
        title: "Kuzushiji-MNIST",
        examples: [60_000, 10_000],
        shape: GREY_28,
        homepage: "https://github.com/rois-codh/kmnist",
        licence: "CC BY-SA 4.0",
        citation: "T. Clanuwat, M. Bober-Irizar, A. Kitamoto, A. Lamb, K. Yamamoto and D. Ha, Deep Learning for Classical Japanese \
                   Literature, 2018, arXiv:1812.01718",
        megabytes: 21,
        class_names: "o,ki,su,tsu,na,ha,ma,ya,re,wo",
        mean_std: Some((0.1918, 0.3483)),
        source: mnist_like(
            "kmnist",
            &["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
            [
                Checksum::Md5("bdb82020997e1d708af4cf47b453dcf7"),
                Checksum::Md5("e144d726b3acfaa3e44228e80efcd344"),
                Checksum::Md5("5c965bf0a639b31b8f53240b1b52f4d7"),
                Checksum::Md5("7320c461ea6c1c855c0b718fb2a4b134"),
            ],
            None,
        ),
    },
    emnist("emnist-balanced", "EMNIST Balanced", [112_800, 18_800], MERGED, ["emnist-balanced-train", "emnist-balanced-test"], 0),
    emnist("emnist-byclass", "EMNIST ByClass", [697_932, 116_323], BY_CLASS, ["emnist-byclass-train", "emnist-byclass-test"], 0),
    emnist("emnist-bymerge", "EMNIST ByMerge", [697_932, 116_323], MERGED, ["emnist-bymerge-train", "emnist-bymerge-test"], 0),
    emnist("emnist-digits", "EMNIST Digits", [240_000, 40_000], DIGITS, ["emnist-digits-train", "emnist-digits-test"], 0),
    emnist("emnist-letters", "EMNIST Letters", [124_800, 20_800], LETTERS, ["emnist-letters-train", "emnist-letters-test"], 1),
    emnist("emnist-mnist", "EMNIST MNIST", [60_000, 10_000], DIGITS, ["emnist-mnist-train", "emnist-mnist-test"], 0),
];

/// A dataset whose files have MNIST's names.
const fn mnist_like(
    folder: &'static str,
    mirrors: &'static [&'static str],
    checksums: [Checksum; 4],
    package: Option<Package>,
) -> Source {
    Source::Idx(IdxSource {
        folder,
        parts: ["train", "t10k"],
        origin: Origin::Files { mirrors, checksums },
        package,
        transposed: false,
        first_label: 0,
    })
}

/// A part of EMNIST. All parts are in one archive.
const fn emnist(
    name: &'static str,
    title: &'static str,
    examples: [usize; 2],
    class_names: &'static str,
    parts: [&'static str; 2],
    first_label: u8,
) -> Entry {
    Entry {
        name,
        title,
        examples,
        shape: GREY_28,
        homepage: "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        licence: "none stated; made from NIST Special Database 19",
        citation: "G. Cohen, S. Afshar, J. Tapson and A. van Schaik, EMNIST: an extension of MNIST to handwritten letters, 2017, \
                   arXiv:1702.05373",
        megabytes: 562,
        class_names,
        mean_std: None,
        source: Source::Idx(IdxSource {
            folder: "emnist",
            parts,
            origin: Origin::Archive {
                urls: &["https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"],
                file: "gzip.zip",
                checksum: Checksum::Md5("58c8d27c78d21e728a6bc7b3cc06412e"),
            },
            package: None,
            transposed: true,
            first_label,
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_papers() {
        let counts: Vec<_> = catalogue().iter().map(|entry| (entry.name, entry.classes().len())).collect();
        let expected = [
            ("digits", 10),
            ("mnist", 10),
            ("fashion-mnist", 10),
            ("kmnist", 10),
            ("emnist-balanced", 47),
            ("emnist-byclass", 62),
            ("emnist-bymerge", 47),
            ("emnist-digits", 10),
            ("emnist-letters", 26),
            ("emnist-mnist", 10),
        ];
        assert_eq!(counts, expected);
        assert_eq!(find("fashion-mnist").unwrap().classes()[9], "Ankle boot");
        assert_eq!(find("emnist-balanced").unwrap().classes()[36..39], ["a", "b", "d"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = find("fashoin-mnist").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no dataset `fashoin-mnist` (did you mean `fashion-mnist`?): the datasets are "),
            "{error}"
        );
        assert!(error.contains("digits, mnist, "), "{error}");
        for far in ["xyz", "nope", "imagenet"] {
            assert!(!find(far).unwrap_err().to_string().contains("did you mean"), "{far}");
        }
    }
}
