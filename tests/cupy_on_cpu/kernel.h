// As much of CUDA C++ as g++ needs to compile the kernels that CuPy writes.
#pragma once
#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// The threads: see device.cpp.
struct cpu_triple { unsigned x, y, z; };
extern "C" {
extern cpu_triple cpu_threadIdx, cpu_blockIdx, cpu_blockDim, cpu_gridDim;
extern char* cpu_dynamic_shared;
void cpu_sync_block();
void cpu_sync_warp();
void cpu_shuffle(const void* own, void* found, size_t size, unsigned lane);
}
#define threadIdx cpu_threadIdx
#define blockIdx cpu_blockIdx
#define blockDim cpu_blockDim
#define gridDim cpu_gridDim
#define warpSize 32

inline void __syncthreads() { cpu_sync_block(); }
inline void __syncwarp(unsigned = 0) { cpu_sync_warp(); }
inline void __threadfence() {}
inline unsigned cpu_lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }
template <class T> T cpu_of_lane(T value, unsigned lane) {
  T found;
  cpu_shuffle(&value, &found, sizeof(T), lane);
  return found;
}
template <class T> T __shfl_sync(unsigned, T value, int lane, int width = 32) {
  return cpu_of_lane(value, cpu_lane() / width * width + lane % width);
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int = 32) { return cpu_of_lane(value, cpu_lane() ^ mask); }
template <class T> T __shfl_up_sync(unsigned, T value, unsigned by, int width = 32) {
  return cpu_of_lane(value, cpu_lane() % width >= by ? cpu_lane() - by : cpu_lane());
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
  return cpu_of_lane(value, cpu_lane() % width + by < (unsigned)width ? cpu_lane() + by : cpu_lane());
}

// One thread runs at a time, so an atomic operation is an ordinary one.
template <class T> T atomicAdd(T* place, T value) { T old = *place; *place = old + value; return old; }
template <class T> T atomicExch(T* place, T value) { T old = *place; *place = value; return old; }
template <class T> T atomicCAS(T* place, T expected, T value) { T old = *place; if (old == expected) *place = value; return old; }
template <class T> T atomicMax(T* place, T value) { T old = *place; if (value > old) *place = value; return old; }
template <class T> T atomicMin(T* place, T value) { T old = *place; if (value < old) *place = value; return old; }
template <class T> T atomicAnd(T* place, T value) { T old = *place; *place = old & value; return old; }
template <class T> T atomicOr(T* place, T value) { T old = *place; *place = old | value; return old; }
template <class T> T atomicXor(T* place, T value) { T old = *place; *place = old ^ value; return old; }

// Bits.
template <class To, class From> To cpu_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  memcpy(&bits, &value, sizeof(To));
  return bits;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __float_as_int(float x) { return cpu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cpu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cpu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cpu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cpu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cpu_bits<double>(x); }
inline unsigned short __float2half_rn(float x) { return cpu_bits<unsigned short>((_Float16)x); }
inline float __half2float(unsigned short bits) { return (float)cpu_bits<_Float16>(bits); }
#define __half_as_ushort(x) cpu_bits<unsigned short>(x)
#define __ushort_as_half(x) cpu_bits<half>((unsigned short)(x))
template <class T> T __ldg(const T* place) { return *place; }

// Mathematics, which CUDA has for float and for integers in the global namespace.
#define CPU_OF_ONE(f) \
  inline float f(float x) { return std::f(x); } \
  template <class I, class = std::enable_if_t<std::is_integral<I>::value>> double f(I x) { return std::f((double)x); }
CPU_OF_ONE(sin) CPU_OF_ONE(cos) CPU_OF_ONE(tan) CPU_OF_ONE(asin) CPU_OF_ONE(acos) CPU_OF_ONE(atan) CPU_OF_ONE(sinh)
CPU_OF_ONE(cosh) CPU_OF_ONE(tanh) CPU_OF_ONE(asinh) CPU_OF_ONE(acosh) CPU_OF_ONE(atanh) CPU_OF_ONE(exp) CPU_OF_ONE(exp2)
CPU_OF_ONE(expm1) CPU_OF_ONE(log) CPU_OF_ONE(log2) CPU_OF_ONE(log10) CPU_OF_ONE(log1p) CPU_OF_ONE(sqrt) CPU_OF_ONE(cbrt)
CPU_OF_ONE(floor) CPU_OF_ONE(ceil) CPU_OF_ONE(trunc) CPU_OF_ONE(rint) CPU_OF_ONE(fabs) CPU_OF_ONE(round)
#define CPU_OF_TWO(f) inline float f(float x, float y) { return std::f(x, y); }
CPU_OF_TWO(pow) CPU_OF_TWO(fmod) CPU_OF_TWO(atan2) CPU_OF_TWO(hypot) CPU_OF_TWO(copysign) CPU_OF_TWO(nextafter)
CPU_OF_TWO(fmin) CPU_OF_TWO(fmax)
template <class I, class = std::enable_if_t<std::is_integral<I>::value>> double pow(I x, double y) { return std::pow((double)x, y); }
inline double pow(double x, int y) { return std::pow(x, (double)y); }
inline float pow(float x, int y) { return std::pow(x, (float)y); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
template <class T, class = std::enable_if_t<std::is_arithmetic<T>::value>> T abs(T x) { return x < 0 ? -x : x; }
inline float abs(float x) { return std::fabs(x); }
inline double abs(double x) { return std::fabs(x); }
template <class T, class = std::enable_if_t<std::is_integral<T>::value>> T min(T x, T y) { return x < y ? x : y; }
template <class T, class = std::enable_if_t<std::is_integral<T>::value>> T max(T x, T y) { return x > y ? x : y; }
inline float min(float x, float y) { return std::fmin(x, y); }
inline float max(float x, float y) { return std::fmax(x, y); }
inline double min(double x, double y) { return std::fmin(x, y); }
inline double max(double x, double y) { return std::fmax(x, y); }
using std::erf; using std::frexp; using std::isfinite; using std::isinf; using std::isnan; using std::ldexp;
using std::lgamma; using std::modf; using std::signbit; using std::tgamma;

// Calling a kernel with an array of pointers to its arguments, as a launch gives them.
template <class... A, size_t... I> void cpu_call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)arguments[I]...);
}
template <class... A> void cpu_call(void (*kernel)(A...), void** arguments) {
  cpu_call(kernel, arguments, std::index_sequence_for<A...>());
}
