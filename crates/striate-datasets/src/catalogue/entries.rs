//! The datasets, one after the other. A new one needs nothing but its entry here, unless its files
//! are of a new format.

use super::{Checksum, Classes, Entry, Origin, Package};
use crate::formats::{Cifar, ClassFolders, Digits, Food101, ImageNet, Mnist, Stl10, Svhn};

const GREY_28: Option<[i64; 3]> = Some([1, 28, 28]);
const COLOUR_32: Option<[i64; 3]> = Some([3, 32, 32]);
const DIGITS: &str = "0,1,2,3,4,5,6,7,8,9";
const LETTERS: &str = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z";
const MERGED: &str = "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,a,b,d,e,f,g,h,n,q,r,t";
const BY_CLASS: &str = "0,1,2,3,4,5,6,7,8,9,A,B,C,D,E,F,G,H,I,J,K,L,M,N,O,P,Q,R,S,T,U,V,W,X,Y,Z,\
                        a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z";
/// The synsets of ImageNet's 1,000 classes, with torchvision's names.
pub(super) const IMAGENET: &str = include_str!("../../data/imagenet.txt");
const IMAGENETTE: &str = "n01440764 tench\nn02102040 English springer\nn02979186 cassette player\nn03000684 chain saw\n\
                          n03028079 church\nn03394916 French horn\nn03417042 garbage truck\nn03425413 gas pump\n\
                          n03445777 golf ball\nn03888257 parachute";
const IMAGEWOOF: &str = "n02086240 Shih-Tzu\nn02087394 Rhodesian ridgeback\nn02088364 beagle\nn02089973 English foxhound\n\
                         n02093754 Border terrier\nn02096294 Australian terrier\nn02099601 golden retriever\n\
                         n02105641 Old English sheepdog\nn02111889 Samoyed\nn02115641 dingo";
/// The values that networks on ImageNet are used to.
const OF_IMAGENET: Option<&[(f64, f64)]> = Some(&[(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]);
const OF_CIFAR_100: Option<&[(f64, f64)]> = Some(&[(0.5071, 0.2673), (0.4865, 0.2564), (0.4409, 0.2762)]);
const TERMS_OF_IMAGENET: &str = "ImageNet's terms: non-commercial research";

pub(super) static CATALOGUE: &[Entry] = &[
    Entry {
        name: "digits",
        title: "Optical Recognition of Handwritten Digits",
        examples: [898, 899],
        shape: Some([1, 8, 8]),
        homepage: "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence: "CC BY 4.0",
        citation: "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, \
                   doi:10.24432/C50P49",
        mirrors: false,
        folder: "digits",
        places: &[],
        classes: Classes::Names(DIGITS),
        statistics: None,
        origin: Origin::Embedded,
        format: &Digits,
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
        mirrors: false,
        folder: "mnist",
        places: &["MNIST/raw", "raw"],
        classes: Classes::Names(DIGITS),
        statistics: Some(&[(0.1307, 0.3081)]),
        origin: Origin::Files {
            mirrors: &["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"],
            files: &[
                ("train-images-idx3-ubyte.gz", Checksum::Md5("f68b3c2dcbeaaa9fbdd348bbdeb94873")),
                ("train-labels-idx1-ubyte.gz", Checksum::Md5("d53e105ee54ea40749a09fcbcd1e9432")),
                ("t10k-images-idx3-ubyte.gz", Checksum::Md5("9fb629c4189551a2d022fa330f9573f3")),
                ("t10k-labels-idx1-ubyte.gz", Checksum::Md5("ec29112dd5afa0611ce80d1b7f02629c")),
            ],
            package: None,
            megabytes: 12,
        },
        format: &Mnist::MNIST,
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
        mirrors: true,
        folder: "fashion-mnist",
        places: &["FashionMNIST/raw", "raw"],
        classes: Classes::Names("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"),
        statistics: Some(&[(0.2860, 0.3530)]),
        origin: Origin::Files {
            mirrors: &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
            files: &[
                (
                    "train-images-idx3-ubyte.gz",
                    Checksum::ContentSha256("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    Checksum::ContentSha256("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    Checksum::ContentSha256("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    Checksum::ContentSha256("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
                ),
            ],
            package: Some(Package { name: "dataset-fashion-mnist", folder: "usr/share/datasets/fashion-mnist" }),
            megabytes: 31,
        },
        format: &Mnist::MNIST,
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
        mirrors: false,
        folder: "kmnist",
        places: &["KMNIST/raw", "raw"],
        classes: Classes::Names("o,ki,su,tsu,na,ha,ma,ya,re,wo"),
        statistics: Some(&[(0.1918, 0.3483)]),
        origin: Origin::Files {
            mirrors: &["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
            files: &[
                ("train-images-idx3-ubyte.gz", Checksum::Md5("bdb82020997e1d708af4cf47b453dcf7")),
                ("train-labels-idx1-ubyte.gz", Checksum::Md5("e144d726b3acfaa3e44228e80efcd344")),
                ("t10k-images-idx3-ubyte.gz", Checksum::Md5("5c965bf0a639b31b8f53240b1b52f4d7")),
                ("t10k-labels-idx1-ubyte.gz", Checksum::Md5("7320c461ea6c1c855c0b718fb2a4b134")),
            ],
            package: None,
            megabytes: 21,
        },
        format: &Mnist::MNIST,
    },
    emnist(
        "emnist-balanced",
        "EMNIST Balanced",
        [112_800, 18_800],
        MERGED,
        &Mnist::emnist(["emnist-balanced-train", "emnist-balanced-test"], 0),
    ),
    emnist(
        "emnist-byclass",
        "EMNIST ByClass",
        [697_932, 116_323],
        BY_CLASS,
        &Mnist::emnist(["emnist-byclass-train", "emnist-byclass-test"], 0),
    ),
    emnist(
        "emnist-bymerge",
        "EMNIST ByMerge",
        [697_932, 116_323],
        MERGED,
        &Mnist::emnist(["emnist-bymerge-train", "emnist-bymerge-test"], 0),
    ),
    emnist(
        "emnist-digits",
        "EMNIST Digits",
        [240_000, 40_000],
        DIGITS,
        &Mnist::emnist(["emnist-digits-train", "emnist-digits-test"], 0),
    ),
    emnist(
        "emnist-letters",
        "EMNIST Letters",
        [124_800, 20_800],
        LETTERS,
        &Mnist::emnist(["emnist-letters-train", "emnist-letters-test"], 1),
    ),
    emnist(
        "emnist-mnist",
        "EMNIST MNIST",
        [60_000, 10_000],
        DIGITS,
        &Mnist::emnist(["emnist-mnist-train", "emnist-mnist-test"], 0),
    ),
    Entry {
        name: "svhn",
        title: "Street View House Numbers, cropped digits",
        examples: [73_257, 26_032],
        shape: COLOUR_32,
        homepage: "http://ufldl.stanford.edu/housenumbers/",
        licence: "non-commercial use only",
        citation: "Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, Reading Digits in Natural Images with \
                   Unsupervised Feature Learning, NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011",
        mirrors: false,
        folder: "svhn",
        places: &[],
        classes: Classes::Names(DIGITS),
        statistics: Some(&[(0.4377, 0.1980), (0.4438, 0.2010), (0.4728, 0.1970)]),
        origin: Origin::Files {
            mirrors: &["http://ufldl.stanford.edu/housenumbers/"],
            files: &[
                ("train_32x32.mat", Checksum::Md5("e26dedcc434d2e4c54c9b2d4a06d8373")),
                ("test_32x32.mat", Checksum::Md5("eb5a983be6a315427106f1b164d9cef3")),
            ],
            package: None,
            megabytes: 246,
        },
        format: &Svhn,
    },
    Entry {
        name: "cifar-10",
        title: "CIFAR-10",
        examples: [50_000, 10_000],
        shape: COLOUR_32,
        homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
        licence: "none stated",
        citation: "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        mirrors: true,
        folder: "cifar-10",
        places: &["cifar-10-batches-bin"],
        classes: Classes::Names("airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"),
        statistics: Some(&[(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]),
        origin: Origin::Archive {
            urls: &["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"],
            file: "cifar-10-binary.tar.gz",
            checksum: Checksum::Md5("c32a1d4ab5d03f1284b67883e8d87530"),
            megabytes: 170,
        },
        format: &Cifar {
            train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
            test: "test_batch.bin",
            labels: 1,
            label: 0,
        },
    },
    cifar_100(
        "cifar-100",
        "CIFAR-100",
        include_str!("../../data/cifar100.txt"),
        &Cifar { train: &["train.bin"], test: "test.bin", labels: 2, label: 1 },
    ),
    cifar_100(
        "cifar-100-coarse",
        "CIFAR-100, its 20 superclasses",
        "aquatic_mammals,fish,flowers,food_containers,fruit_and_vegetables,household_electrical_devices,household_furniture,\
         insects,large_carnivores,large_man-made_outdoor_things,large_natural_outdoor_scenes,large_omnivores_and_herbivores,\
         medium_mammals,non-insect_invertebrates,people,reptiles,small_mammals,trees,vehicles_1,vehicles_2",
        &Cifar { train: &["train.bin"], test: "test.bin", labels: 2, label: 0 },
    ),
    Entry {
        name: "stl-10",
        title: "STL-10, without its pictures that have no label",
        examples: [5000, 8000],
        shape: Some([3, 96, 96]),
        homepage: "https://cs.stanford.edu/~acoates/stl10/",
        licence: "none stated; pictures from ImageNet",
        citation: "A. Coates, H. Lee and A. Y. Ng, An Analysis of Single Layer Networks in Unsupervised Feature Learning, AISTATS, \
                   2011",
        mirrors: true,
        folder: "stl-10",
        places: &["stl10_binary"],
        classes: Classes::Names("airplane,bird,car,cat,deer,dog,horse,monkey,ship,truck"),
        statistics: Some(&[(0.4467, 0.2603), (0.4398, 0.2566), (0.4066, 0.2713)]),
        origin: Origin::Archive {
            urls: &["http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"],
            file: "stl10_binary.tar.gz",
            checksum: Checksum::Md5("91f7769df0f17e558f3565bffb0c7dfb"),
            megabytes: 2640,
        },
        format: &Stl10,
    },
    imagenette(
        "imagenette",
        "Imagenette",
        &["imagenette2"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz"],
            file: "imagenette2.tgz",
            checksum: Checksum::Md5("fe2fc210e6bb7c5664d602c3cd71e612"),
            megabytes: 1557,
        },
    ),
    imagenette(
        "imagenette-320",
        "Imagenette, shorter sides of 320",
        &["imagenette2-320"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"],
            file: "imagenette2-320.tgz",
            checksum: Checksum::Md5("3df6f0d01a2c9592104656642f5e78a3"),
            megabytes: 342,
        },
    ),
    imagenette(
        "imagenette-160",
        "Imagenette, shorter sides of 160",
        &["imagenette2-160"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"],
            file: "imagenette2-160.tgz",
            checksum: Checksum::Md5("e793b78cc4c9e9a4ccc0c1155377a412"),
            megabytes: 99,
        },
    ),
    imagewoof(
        "imagewoof",
        "Imagewoof",
        &["imagewoof2"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2.tgz"],
            file: "imagewoof2.tgz",
            checksum: Checksum::Md5("9aafe18bcdb1632c4249a76c458465ba"),
            megabytes: 1344,
        },
    ),
    imagewoof(
        "imagewoof-320",
        "Imagewoof, shorter sides of 320",
        &["imagewoof2-320"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-320.tgz"],
            file: "imagewoof2-320.tgz",
            checksum: Checksum::Md5("0f46d997ec2264e97609196c95897a44"),
            megabytes: 328,
        },
    ),
    imagewoof(
        "imagewoof-160",
        "Imagewoof, shorter sides of 160",
        &["imagewoof2-160"],
        Origin::Archive {
            urls: &["https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"],
            file: "imagewoof2-160.tgz",
            checksum: Checksum::Md5("3d200a7be99704a0d7509be2a9fbfe15"),
            megabytes: 93,
        },
    ),
    Entry {
        name: "food-101",
        title: "Food-101",
        examples: [75_750, 25_250],
        shape: None,
        homepage: "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        licence: "scientific fair use; the pictures belong to their owners",
        citation: "L. Bossard, M. Guillaumin and L. Van Gool, Food-101: Mining Discriminative Components with Random Forests, ECCV, \
                   2014",
        mirrors: true,
        folder: "food-101",
        places: &["food-101"],
        classes: Classes::Names(include_str!("../../data/food101.txt")),
        statistics: None,
        origin: Origin::Archive {
            urls: &["http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"],
            file: "food-101.tar.gz",
            checksum: Checksum::Md5("85eeb15f3717b99a5da872d97d918f87"),
            megabytes: 4996,
        },
        format: &Food101,
    },
    Entry {
        name: "imagenet",
        title: "ImageNet-1K (ILSVRC 2012)",
        examples: [1_281_167, 50_000],
        shape: None,
        homepage: "https://image-net.org/challenges/LSVRC/2012/",
        licence: TERMS_OF_IMAGENET,
        citation: "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115(3), 2015, arXiv:1409.0575",
        mirrors: true,
        folder: "imagenet",
        // Where the competition's archive has it.
        places: &["ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"],
        classes: Classes::Synsets(IMAGENET),
        statistics: OF_IMAGENET,
        origin: Origin::ByHand,
        format: &ImageNet,
    },
];

/// A part of EMNIST. All parts are in one archive.
const fn emnist(
    name: &'static str,
    title: &'static str,
    examples: [usize; 2],
    classes: &'static str,
    format: &'static Mnist,
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
        mirrors: false,
        folder: "emnist",
        places: &["EMNIST/raw", "raw", "gzip"],
        classes: Classes::Names(classes),
        statistics: None,
        origin: Origin::Archive {
            urls: &["https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"],
            file: "gzip.zip",
            checksum: Checksum::Md5("58c8d27c78d21e728a6bc7b3cc06412e"),
            megabytes: 562,
        },
        format,
    }
}

/// CIFAR-100 by one of its two labels.
const fn cifar_100(name: &'static str, title: &'static str, classes: &'static str, format: &'static Cifar) -> Entry {
    Entry {
        name,
        title,
        examples: [50_000, 10_000],
        shape: COLOUR_32,
        homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
        licence: "none stated",
        citation: "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        mirrors: true,
        folder: "cifar-100",
        places: &["cifar-100-binary"],
        classes: Classes::Names(classes),
        statistics: OF_CIFAR_100,
        origin: Origin::Archive {
            urls: &["https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"],
            file: "cifar-100-binary.tar.gz",
            checksum: Checksum::Md5("03b5dce01913d631647c71ecec9e9cb8"),
            megabytes: 169,
        },
        format,
    }
}

/// Imagenette of some size.
const fn imagenette(name: &'static str, title: &'static str, places: &'static [&'static str], origin: Origin) -> Entry {
    Entry {
        name,
        title,
        examples: [9469, 3925],
        shape: None,
        homepage: "https://github.com/fastai/imagenette",
        licence: TERMS_OF_IMAGENET,
        citation: "J. Howard, Imagenette, 2019, https://github.com/fastai/imagenette",
        mirrors: true,
        folder: name,
        places,
        classes: Classes::Synsets(IMAGENETTE),
        statistics: OF_IMAGENET,
        origin,
        format: &ClassFolders,
    }
}

/// Imagewoof of some size.
const fn imagewoof(name: &'static str, title: &'static str, places: &'static [&'static str], origin: Origin) -> Entry {
    Entry {
        examples: [9025, 3929],
        citation: "J. Howard, Imagewoof, 2019, https://github.com/fastai/imagenette",
        classes: Classes::Synsets(IMAGEWOOF),
        ..imagenette(name, title, places, origin)
    }
}
