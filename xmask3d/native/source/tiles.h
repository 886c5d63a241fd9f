// Products of bfloat16 tiles, 16 x 32 by 32 x 16 a step, where processor, compiler and system know them (Intel AMX).
#pragma once

#include "vectors.h"

#if defined(XM_BF16) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__) && defined(__x86_64__)
#define XM_TILES 1
#endif

constexpr int kTileRows = 16;    // rows of a tile; a row is 64 bytes
constexpr int kTileDepth = 32;   // bfloat16 a row
constexpr int kTileVectors = 8;  // vectors of the widest panel of columns
constexpr int kTileLeast = 8;    // channels: with fewer, most of a tile is empty and vectors are quicker

// Whether the loops may use tiles: the system has to allow them, once a process.
bool tiles_used();

inline bool in_tiles(int channels) { return channels >= kTileLeast && tiles_used(); }

#ifdef XM_TILES
// A thread's tiles while this lives, all of full size; released after, so that the system need not save them.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int tile = 0; tile < 8; ++tile) shape.row_bytes[tile] = 64, shape.rows[tile] = kTileRows;
    asm volatile("ldtilecfg %0" ::"m"(shape));
  }
  ~TileScope() { asm volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// The compiler's own functions do not tell it which memory they read; these do. `step` is in bytes.
template <int T>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
inline void tile_load(const void* from, int64_t step) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(T), "r"(from), "r"(step) : "memory");
}
template <int T>
inline void tile_store(void* to, int64_t step) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(T), "r"(to), "r"(step) : "memory");
}
template <int Sum, int A, int B>
inline void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
}

// Where tiles lie, in elements: from row to row, and from tile to tile down, across and along the summed dimension.
struct TilePlaces {
  int64_t row, next, along;
};

// R x C tiles (two each at most) of a product over `steps` times 32 channels, stored in `sums`.
template <int R, int C>
inline void tile_product(const uint16_t* a, const TilePlaces& at, const uint16_t* b, const TilePlaces& bt,
                         int64_t steps, float* sums, int64_t sums_row) {
  tile_zero<0>();
  if constexpr (C > 1) tile_zero<1>();
  if constexpr (R > 1) tile_zero<2>();
  if constexpr (R > 1 && C > 1) tile_zero<3>();
  for (int64_t step = 0; step < steps; ++step, a += at.along, b += bt.along) {
    tile_load<6>(b, 2 * bt.row);
    tile_load<4>(a, 2 * at.row);
    tile_multiply<0, 4, 6>();
    if constexpr (R > 1) {
      tile_load<5>(a + at.next, 2 * at.row);
      tile_multiply<2, 5, 6>();
    }
    if constexpr (C > 1) {
      tile_load<7>(b + bt.next, 2 * bt.row);
      tile_multiply<1, 4, 7>();
      if constexpr (R > 1) tile_multiply<3, 5, 7>();
    }
  }
  tile_store<0>(sums, 4 * sums_row);
  if constexpr (C > 1) tile_store<1>(sums + kLanes, 4 * sums_row);
  if constexpr (R > 1) tile_store<2>(sums + kTileRows * sums_row, 4 * sums_row);
  if constexpr (R > 1 && C > 1) tile_store<3>(sums + kTileRows * sums_row + kLanes, 4 * sums_row);
}

// The same, R and C as they come.
inline void tile_product(bool two_down, bool two_across, const uint16_t* a, const TilePlaces& at, const uint16_t* b,
                         const TilePlaces& bt, int64_t steps, float* sums, int64_t sums_row) {
  if (two_down && two_across) tile_product<2, 2>(a, at, b, bt, steps, sums, sums_row);
  else if (two_down) tile_product<2, 1>(a, at, b, bt, steps, sums, sums_row);
  else if (two_across) tile_product<1, 2>(a, at, b, bt, steps, sums, sums_row);
  else tile_product<1, 1>(a, at, b, bt, steps, sums, sums_row);
}
#endif
