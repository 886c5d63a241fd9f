// Vectors as wide as the machine's registers, and how products are cut into register tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kMaxVectors = 4;
#elif defined(__AVX__)
constexpr int kLanes = 8;
constexpr int kMaxVectors = 2;
#elif defined(__aarch64__)
constexpr int kLanes = 4;
constexpr int kMaxVectors = 4;
#else
constexpr int kLanes = 4;
constexpr int kMaxVectors = 2;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float VecUnaligned __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

static inline Vec load(const float* from) { return *reinterpret_cast<const VecUnaligned*>(from); }
static inline void store(float* to, Vec value) { *reinterpret_cast<VecUnaligned*>(to) = value; }
static inline Vec broadcast(float value) { return Vec{} + value; }

// Rows of a register tile whose columns are NV vectors: accumulators, one row of weights and a broadcast fit the
// register file (32 vectors with AVX-512 and NEON, else 16).
constexpr int tile_rows(int vectors) {
  return kMaxVectors == 4 ? (vectors == 4 ? 6 : vectors == 3 ? 8 : 12) : (vectors == 2 ? 6 : 12);
}

// Columns are cut into panels of at most kMaxVectors vectors, as even as possible.
struct Panels {
  int vectors, count;
  explicit Panels(int width)
      : vectors((width + kLanes - 1) / kLanes), count((vectors + kMaxVectors - 1) / kMaxVectors) {}
  int first(int panel) const { return panel * (vectors / count) + (panel < vectors % count ? panel : vectors % count); }
  int size(int panel) const { return first(panel + 1) - first(panel); }
};

// Call `BODY` with the constant NV that equals a panel's number of vectors.
#define XM_DISPATCH_VECTORS(vectors, BODY)          \
  switch (vectors) {                                \
    case 1: { constexpr int NV = 1; BODY; break; }  \
    case 2: { constexpr int NV = 2; BODY; break; }  \
    case 3: { constexpr int NV = 3; BODY; break; }  \
    default: { constexpr int NV = kMaxVectors; BODY; } \
  }

