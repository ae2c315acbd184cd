#include "train/random_state.h"

#include <ATen/Context.h>

#include <mutex>

namespace llava {

RandomState::RandomState(c10::Device device) : devices_{c10::Device(c10::kCPU)} {
  if (!device.is_cpu()) devices_.push_back(device);
  for (const c10::Device& d : devices_) {
    at::Generator generator = at::globalContext().defaultGenerator(d);
    const std::lock_guard lock(generator.mutex());
    states_.push_back(generator.get_state());
  }
}

void RandomState::restore() const {
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    at::Generator generator = at::globalContext().defaultGenerator(devices_[i]);
    const std::lock_guard lock(generator.mutex());
    generator.set_state(states_[i]);
  }
}

}  // namespace llava
