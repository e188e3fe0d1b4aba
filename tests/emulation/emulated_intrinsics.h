// The plain C++ twins of csrc/ortho/cuda/intrinsics.cuh. Included by csrc/ortho/cuda/device.cuh alone, after
// the storage formats of matrix.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../csrc/ortho/cpu/start_vectors.h"
#include "emulator.h"

#define ORTHO_DEVICE inline
#define ORTHO_UNROLL
#define ORTHO_UNROLL_BY(times)
#define ORTHO_KERNEL(threads, blocks, name, Arguments) void name(const Arguments& arguments)

namespace ortho::cuda {

inline int thread_index() { return emulator::thread_index(); }
inline int block_index() { return emulator::block_index(); }
inline int block_count() { return emulator::block_count(); }
inline int computed_here(int number) { return number; }
inline unsigned char* shared_memory() { return emulator::shared_memory(); }
#ifdef ORTHO_LOADERS
inline void block_barrier(int line = __builtin_LINE()) { emulator::barrier(0, 256, line); }
#else
inline void block_barrier(int line = __builtin_LINE()) { emulator::block_barrier(line); }
#endif
inline void memory_fence() { emulator::memory_fence(); }
// The counter's value before.
inline std::uint32_t count_up(std::uint32_t* counter) { return emulator::count_up(counter); }
inline std::uint32_t read_counter(const std::uint32_t* counter) { return emulator::read_counter(counter); }
// Of a loop that waits for another block.
inline void let_others_run() { emulator::let_others_run(); }
using ortho::inverse_erf;

template <class T>
T shuffle_xor(T value, int lanes) {
  return emulator::exchange<T, T>(0xffffffffu, value,
                                  [&](const T* all, int lane) { return all[lane ^ lanes]; });
}

template <class T>
T read_past_l1(const T* address) {
  return *address;
}
template <class T>
T read_constant(const T* address) {
  return *address;
}
template <class T>
T read_valid(const T* address, bool valid) {
  return valid ? *address : T{};
}
inline void read_pair_past_l1(const float* pair, float& first, float& second) {
  first = pair[0];
  second = pair[1];
}

template <int Bytes>
void copy_async(void* target, const void* source, bool valid) {
  emulator::copy_async(target, source, Bytes, valid);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int Groups>
void await_copies() {
  emulator::await_copies(Groups);
}

inline void separate_loads() {}
inline void renew(std::uint32_t&) {}

inline float bits_as_float(std::uint32_t bits) { return emulator::bits_as<float>(bits); }
inline std::uint32_t float_as_bits(float number) { return emulator::bits_as<std::uint32_t>(number); }
inline float to_float(bfloat16 number) { return bits_as_float(std::uint32_t{number.bits} << 16); }
inline float to_float(float16 number) { return emulator::float_from_half(number.bits); }
inline bfloat16 to_bfloat16(float number) { return {emulator::bfloat_from_float(number)}; }
inline std::uint32_t to_bfloat16_pair(float first, float second) {
  return emulator::bfloat_from_float(first) | std::uint32_t{emulator::bfloat_from_float(second)} << 16;
}
inline std::uint32_t to_float16_pair(float first, float second) {
  return emulator::half_from_float(first) | std::uint32_t{emulator::half_from_float(second)} << 16;
}
inline float16 to_float16(float number) { return {emulator::half_from_float(number)}; }
inline float larger_magnitude(float largest, float number) {
  const float magnitude = number < 0 ? -number : number;
  return magnitude > largest ? magnitude : largest;
}
inline double square_root(double number) { return emulator::square_root(number); }
inline float add_rounded(float a, float b) { return emulator::add(a, b); }
inline float multiply_rounded(float a, float b) { return emulator::multiply(a, b); }
inline float multiply_add_rounded(float a, float b, float c) { return emulator::multiply_add(a, b, c); }

template <bool Transposed>
void load_blocks(const void* row, std::uint32_t (&blocks)[4]) {
  struct Rows {
    const std::uint16_t* of_block[4][2];  // whose numbers this lane gets
    int number[2];
  };
  emulator::check_block_row(row);
  const Rows rows =
      emulator::exchange<const void*, Rows>(0xffffffffu, row, [](const void* const* all, int lane) {
        Rows mine;
        for (int i = 0; i < 2; ++i) {
          const int own_row = Transposed ? 2 * (lane % 4) + i : lane / 4;
          mine.number[i] = Transposed ? lane / 4 : 2 * (lane % 4) + i;
          for (int b = 0; b < 4; ++b)
            mine.of_block[b][i] = static_cast<const std::uint16_t*>(all[8 * b + own_row]);
        }
        return mine;
      });
  // Outside the exchange, so that a race detector sees the reads.
  for (int b = 0; b < 4; ++b)
    blocks[b] = rows.of_block[b][0][rows.number[0]] | std::uint32_t{rows.of_block[b][1][rows.number[1]]}
                                                          << 16;
}

// ---- tensor cores ----------------------------------------------------------------------------------------

namespace twin {

template <class Number, int ACount, int BCount>
struct Fragments {
  Number a[ACount], b[BCount];
};

// a(all, row, k) and b(all, k, column) look an operand up in the fragments of all lanes.
template <int Depth, class Fragment, class Sum, class A, class B>
void multiply_add(const Fragment& mine, Sum (&sums)[4], const A& a, const B& b) {
  struct Result {
    Sum sums[4];
  };
  const Result result =
      emulator::exchange<Fragment, Result>(0xffffffffu, mine, [&](const Fragment* all, int lane) {
        Result r;
        for (int e = 0; e < 4; ++e) {
          const int row = lane / 4 + 8 * (e / 2), column = 2 * (lane % 4) + e % 2;
          double products[Depth];
          for (int k = 0; k < Depth; ++k) products[k] = double{a(all, row, k)} * double{b(all, k, column)};
          r.sums[e] = emulator::add_products(sums[e], products, Depth);
        }
        return r;
      });
  for (int e = 0; e < 4; ++e) sums[e] = result.sums[e];
}

}  // namespace twin

template <class Half>
void mma_16bit(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  using Fragment = twin::Fragments<std::uint32_t, 4, 2>;
  const Fragment mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto number = [](std::uint32_t pair, int k) {
    return to_float(Half{static_cast<std::uint16_t>(pair >> (16 * (k % 2)))});
  };
  twin::multiply_add<16>(
      mine, sums,
      [&](const Fragment* all, int row, int k) {
        return number(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k);
      },
      [&](const Fragment* all, int k, int column) {
        return number(all[column * 4 + k % 8 / 2].b[k / 8], k);
      });
}

inline void mma_fp64(double (&sums)[4], const double (&a)[2], double b) {
  using Fragment = twin::Fragments<double, 2, 1>;
  const Fragment mine{{a[0], a[1]}, {b}};
  twin::multiply_add<4>(
      mine, sums, [](const Fragment* all, int row, int k) { return all[row % 8 * 4 + k].a[row / 8]; },
      [](const Fragment* all, int k, int column) { return all[column * 4 + k].b[0]; });
}

// ---- tensor cores of a warpgroup -------------------------------------------------------------------------

#ifdef ORTHO_WARPGROUPS

struct PanelPlace {
  const unsigned char* first;
  int vectors_bytes, depth_bytes;

  PanelPlace(const void* first_number, int to_next_vectors, int to_next_depth)
      : first(static_cast<const unsigned char*>(first_number)),
        vectors_bytes(to_next_vectors),
        depth_bytes(to_next_depth) {}
  PanelPlace behind(int bytes) const { return {first + bytes, vectors_bytes, depth_bytes}; }

  template <class Half, bool Transposed>
  float number(int vector, int k) const {
    const int along = Transposed ? vector : k, across = Transposed ? k : vector;
    Half half;
    std::memcpy(&half,
                first + vector / 8 * vectors_bytes + k / 8 * depth_bytes + across % 8 * 16 + along % 8 * 2,
                sizeof(half));
    return to_float(half);
  }
};

inline void sync_at(int barrier, int threads, int line = __builtin_LINE()) {
  emulator::barrier(barrier, threads, line);
}
inline void arrive_at(int barrier, int threads) { emulator::arrive(barrier, threads); }
template <int>
void give_registers() {}
template <int>
void take_registers() {}

inline void show_to_tensor_cores() { emulator::show_to_tensor_cores(); }
inline void begin_products() { emulator::begin_products(); }
inline void commit_products() { emulator::commit_products(); }

template <class Half, bool LeftTransposed, bool RightTransposed, int Count>
void begin_product(float (&sums)[Count], PanelPlace a, PanelPlace b, bool adds) {
  emulator::check_panels(a.first, b.first);
  // Each thread works out its own sums, so that a race detector sees what it reads.
  emulator::begin_product([&sums, a, b, adds] {
    constexpr int depth = 16, columns = 2 * Count;
    const int lane = thread_index() % 32, top = thread_index() / 32 % 4 * 16 + lane / 4;
    for (int block = 0; block < columns / 8; ++block) {
      for (int e = 0; e < 4; ++e) {
        const int row = top + 8 * (e / 2), column = 8 * block + 2 * (lane % 4) + e % 2;
        double products[depth];
        for (int k = 0; k < depth; ++k) {
          products[k] = double{a.number<Half, LeftTransposed>(row, k)} *
                        double{b.number<Half, RightTransposed>(column, k)};
        }
        float& sum = sums[4 * block + e];
        sum = emulator::add_products(adds ? sum : 0, products, depth);
      }
    }
  });
}

template <int Count>
void await_products(float (&)[Count]) {
  emulator::await_products();
}

#endif

}  // namespace ortho::cuda
