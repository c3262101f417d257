// CUDA's atomics: relaxed, returning the old value.
#pragma once

#include <algorithm>
#include <atomic>
#include <type_traits>

namespace cuda_threads {

template <class T, class Change>
T replace(T* at, const Change& change) {
  std::atomic_ref<T> cell(*at);
  T old = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace cuda_threads

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> x) {
  return std::atomic_ref<T>(*at).fetch_add(x, std::memory_order_relaxed);
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> x) {
  return std::atomic_ref<T>(*at).exchange(x, std::memory_order_relaxed);
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> x) {
  return cuda_threads::replace(at, [x](T old) { return std::max(old, x); });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> x) {
  return cuda_threads::replace(at, [x](T old) { return std::min(old, x); });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> x) {
  return std::atomic_ref<T>(*at).fetch_or(x, std::memory_order_relaxed);
}
template <class T>
T atomicAnd(T* at, std::type_identity_t<T> x) {
  return std::atomic_ref<T>(*at).fetch_and(x, std::memory_order_relaxed);
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  std::atomic_ref<T>(*at).compare_exchange_strong(expected, x, std::memory_order_relaxed);
  return expected;
}
