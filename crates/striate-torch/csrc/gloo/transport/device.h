// libtorch has Gloo inside, without its headers: this declares what ProcessGroupGloo.hpp names of this one.
#pragma once

namespace gloo::transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
}  // namespace gloo::transport
