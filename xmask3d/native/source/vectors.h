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

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define XM_BF16 1
#include <immintrin.h>
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

// Columns are cut into panels of at most `most` vectors, as even as possible.
struct Panels {
  int vectors, count;
  explicit Panels(int width, int most = kMaxVectors)
      : vectors((width + kLanes - 1) / kLanes), count((vectors + most - 1) / most) {}
  int first(int panel) const { return panel * (vectors / count) + (panel < vectors % count ? panel : vectors % count); }
  int size(int panel) const { return first(panel + 1) - first(panel); }
  int padded() const { return vectors * kLanes; }
};

// Call `BODY` with the constant NV that equals a panel's number of vectors.
#define XM_DISPATCH_VECTORS(vectors, BODY)          \
  switch (vectors) {                                \
    case 1: { constexpr int NV = 1; BODY; break; }  \
    case 2: { constexpr int NV = 2; BODY; break; }  \
    case 3: { constexpr int NV = 3; BODY; break; }  \
    default: { constexpr int NV = kMaxVectors; BODY; } \
  }

#ifdef XM_BF16
// Neighbours of two rows of 16 side by side.
static inline __m512i side_by_side(__m256i low, __m256i high) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// 16 x 16 twos turned: two c of row r becomes two r of row c; rows of `to` are aligned and `step` apart.
static inline void transpose16(const uint16_t* const* from, uint16_t* to, int64_t step) {
  for (int q = 0; q < 4; ++q, to += 4 * step) {  // twos 4q to 4q + 3: rows r, r + 4, r + 8, r + 12 share a vector
    __m512i z[4];
    for (int r = 0; r < 4; ++r) {
      const auto part = [&](int row) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from[row] + 8 * q)); };
      z[r] = _mm512_castsi128_si512(part(r));
      z[r] = _mm512_mask_broadcast_i32x4(z[r], 0x00F0, part(r + 4));
      z[r] = _mm512_mask_broadcast_i32x4(z[r], 0x0F00, part(r + 8));
      z[r] = _mm512_mask_broadcast_i32x4(z[r], 0xF000, part(r + 12));
    }
    const __m512i a = _mm512_unpacklo_epi32(z[0], z[1]), b = _mm512_unpackhi_epi32(z[0], z[1]);
    const __m512i c = _mm512_unpacklo_epi32(z[2], z[3]), d = _mm512_unpackhi_epi32(z[2], z[3]);
    _mm512_store_si512(to, _mm512_unpacklo_epi64(a, c));
    _mm512_store_si512(to + step, _mm512_unpackhi_epi64(a, c));
    _mm512_store_si512(to + 2 * step, _mm512_unpacklo_epi64(b, d));
    _mm512_store_si512(to + 3 * step, _mm512_unpackhi_epi64(b, d));
  }
}
#endif
