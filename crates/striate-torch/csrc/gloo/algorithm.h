// libtorch has Gloo inside, without its headers. ProcessGroupGloo.hpp includes this one and names nothing of it.
#pragma once
