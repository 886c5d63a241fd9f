// Pictures of textured triangles by Embree's rays in packets of 4 x 4 pixels, lit as xmask3d/rooms/render.py says.
//
// Embree 4 (https://github.com/RenderKit/embree) is not linked: its functions come as addresses, its structures are
// written down here. Rays give the same distances alone and in packets, to the last bit, but of triangles at nearly the
// same distance each way may take another. A ray that meets two such is followed again alone, so that what is seen does
// not depend on how rays are grouped. Colours are rounded as NumPy rounds them: products are not fused with sums.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace {

constexpr int kLanes = 16;
constexpr uint32_t kNone = 0xFFFFFFFF;
constexpr float kTie = 1e-6f;  // of a distance: what rounding may hide
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kCallFilter = 1 << 1, kCoherent = 1 << 16;

// RTCRay and RTCHit, a number (alone) or a row of 16 (in packets) each.
template <int lanes>
struct alignas(64) Rays {
  float origin[3][lanes], nearest[lanes], direction[3][lanes], time[lanes], farthest[lanes];
  uint32_t mask[lanes], number[lanes], flags[lanes];
  float normal[3][lanes], u[lanes], v[lanes];
  uint32_t triangle[lanes], geometry[lanes], instance[lanes], instance_part[lanes];

  Rays() {
    for (int lane = 0; lane < lanes; ++lane) {
      time[lane] = 0;
      mask[lane] = kNone;
      number[lane] = lane;
      flags[lane] = 0;
      instance[lane] = instance_part[lane] = kNone;
    }
  }

  void set(int lane, const float* from, const float* along, float far) {
    for (int axis = 0; axis < 3; ++axis) {
      origin[axis][lane] = from[axis];
      direction[axis][lane] = along[axis];
    }
    nearest[lane] = 0;
    farthest[lane] = far;
    triangle[lane] = geometry[lane] = kNone;
  }
};

// RTCRayQueryContext, and what our filter needs.
struct Context {
  uint32_t instance = kNone, part = kNone;
  float nearest[kLanes];
  uint32_t triangle[kLanes];
  bool tied[kLanes];
};

struct FilterArguments {  // RTCFilterFunctionNArguments
  int* valid;
  void* user;
  Context* context;
  void* rays;
  void* hits;
  uint32_t count;
};

struct Arguments {  // RTCIntersectArguments, RTCOccludedArguments
  int flags;
  uint32_t features;
  Context* context;
  void (*filter)(const FilterArguments*);
  void* function;
  float least_width;
};

// Keeps the nearest triangle of each ray, and notes whether another is as far but for rounding: for that the ray goes on
// a little further than to the nearest.
void note_ties(const FilterArguments* call) {
  Context& c = *call->context;
  float* farthest = static_cast<float*>(call->rays) + 8 * call->count;
  const uint32_t* lane = static_cast<const uint32_t*>(call->rays) + 10 * call->count;
  const uint32_t* triangle = static_cast<const uint32_t*>(call->hits) + 5 * call->count;
  for (uint32_t i = 0; i < call->count; ++i) {
    if (!call->valid[i]) continue;
    const uint32_t k = lane[i] % kLanes;
    const float t = farthest[i], gap = c.nearest[k] - t;
    if (gap > 0 || c.triangle[k] == kNone) {
      c.tied[k] = gap <= t * kTie;
      c.nearest[k] = t;
      c.triangle[k] = triangle[i];
      farthest[i] = t * (1 + kTie);
    } else {
      c.tied[k] |= triangle[i] != c.triangle[k];
      call->valid[i] = 0;
    }
  }
}

// What is drawn: a scene of Embree and, for each of its triangles, how it looks. As in xmask3d/native/rays.py.
struct Surfaces {
  void* scene;
  void (*intersect1)(void*, void*, const void*);
  void (*intersect16)(const int*, void*, void*, const void*);
  void (*occluded16)(const int*, void*, void*, const void*);
  const float* normals;         // triangles x 3
  const float* daylight;        // 2 x triangles: front, back
  const float* uv;              // triangles x 3 x 2
  const int32_t* texture;       // of a triangle
  const int32_t* instance;      // of a triangle
  const int32_t* label;         // of a triangle
  const uint8_t* texels;        // red, green, blue of all textures
  const int64_t* texture_start;
  const int32_t *texture_width, *texture_height;
  int64_t triangles;
  float lamp[3], lamp_strength;  // no lamp if 0
  float tint[3], background[3];
  int32_t shadows;
};

// height x width rays of like direction side by side, and where to write what they meet; null for what is not wanted.
struct Picture {
  const float* origins;     // 3 a ray, or null: all begin at `origin`
  const float* directions;  // 3 a ray, or null: across[column] + down[row] + forward
  const float *across, *down;
  float forward[3], origin[3];
  int64_t height, width;
  int32_t* face;      // -1 for none
  float* distance;    // 0 for none
  float* color;       // 3 a ray, black for none
  uint8_t* bytes;     // 3 a ray, background for none
  int32_t *instance, *label;  // -1 and 255 for none
};

// 4 x 4 pixels of a picture, or 16 rays of a row.
class Tile {
 public:
  Tile(const Surfaces& surfaces, const Picture& picture) : s(surfaces), p(picture), across(picture.height == 1 ? 16 : 4) {}

  int columns() const { return across; }
  int rows() const { return kLanes / across; }

  void draw(int64_t top, int64_t left) {
    aim(top, left);
    follow();
    for (int k = 0; k < kLanes; ++k) {
      if (!inside[k]) continue;
      const uint32_t face = rays.triangle[k];
      if (p.face) p.face[index[k]] = hit[k] ? int32_t(face) : -1;
      if (p.distance) p.distance[index[k]] = hit[k] ? rays.farthest[k] : 0;
      if (p.instance) p.instance[index[k]] = hit[k] ? s.instance[face] : -1;
      if (p.label) p.label[index[k]] = hit[k] ? s.label[face] : 255;
    }
    if (!p.color && !p.bytes) return;
    texture();
    daylight();
    if (s.lamp_strength > 0) lamp();
    paint();
  }

 private:
  void aim(int64_t top, int64_t left) {
    for (int k = 0; k < kLanes; ++k) {
      int64_t row = top + k / across, column = left + k % across;
      inside[k] = row < p.height && column < p.width ? -1 : 0;
      if (!inside[k]) {
        row = top;
        column = left;
      }
      index[k] = row * p.width + column;
      const float* from = p.origins ? p.origins + 3 * index[k] : p.origin;
      float along[3];
      for (int axis = 0; axis < 3; ++axis)
        along[axis] = p.directions ? p.directions[3 * index[k] + axis]
                                   : p.across[3 * column + axis] + p.down[3 * row + axis] + p.forward[axis];
      rays.set(k, from, along, kInfinity);
      context.nearest[k] = kInfinity;
      context.triangle[k] = kNone;
      context.tied[k] = false;
    }
  }

  void follow() {
    const Arguments packet{kCoherent | kCallFilter, kNone, &context, note_ties, nullptr, 0};
    s.intersect16(inside, s.scene, &rays, &packet);
    for (int k = 0; k < kLanes; ++k) {
      rays.farthest[k] = context.nearest[k];
      if (inside[k] && context.tied[k]) {
        const float from[3] = {rays.origin[0][k], rays.origin[1][k], rays.origin[2][k]};
        const float along[3] = {rays.direction[0][k], rays.direction[1][k], rays.direction[2][k]};
        const Arguments alone{0, kNone, &context, nullptr, nullptr, 0};
        single.set(0, from, along, kInfinity);
        s.intersect1(s.scene, &single, &alone);
        rays.triangle[k] = single.triangle[0];
        rays.farthest[k] = single.farthest[0];
        rays.u[k] = single.u[0];
        rays.v[k] = single.v[0];
      }
      hit[k] = inside[k] && rays.triangle[k] != kNone && rays.farthest[k] < 1e6f;
      face[k] = rays.triangle[k];
    }
  }

  // Unlit colours: the texel at each hit. Textures repeat; v points up.
  void texture() {
    for (int k = 0; k < kLanes; ++k) {
      if (!hit[k]) continue;
      const float* corner = s.uv + 6 * face[k];
      float place[2];
      for (int axis = 0; axis < 2; ++axis) {
        float value = corner[axis] + (corner[2 + axis] - corner[axis]) * rays.u[k];
        value += (corner[4 + axis] - corner[axis]) * rays.v[k];
        place[axis] = value - std::floor(value);
      }
      const int32_t image = s.texture[face[k]], width = s.texture_width[image], height = s.texture_height[image];
      const int32_t column = std::min(std::max(int32_t(double(place[0]) * width), 0), width - 1);
      const int32_t row = std::min(std::max(int32_t(double(1 - place[1]) * height), 0), height - 1);
      const uint8_t* texel = s.texels + 3 * (s.texture_start[image] + int64_t(row) * width + column);
      for (int channel = 0; channel < 3; ++channel) color[channel][k] = float(texel[channel]) / 255.0f;
    }
  }

  // On the side that is seen.
  void daylight() {
    for (int k = 0; k < kLanes; ++k) {
      if (!hit[k]) continue;
      const float* n = s.normals + 3 * face[k];
      const float slope = n[0] * rays.direction[0][k] + n[1] * rays.direction[1][k] + n[2] * rays.direction[2][k];
      const bool back = slope > 0;
      light[k] = s.daylight[(back ? s.triangles : 0) + face[k]];
      for (int axis = 0; axis < 3; ++axis) {
        normal[axis][k] = n[axis] * (back ? -1.0f : 1.0f);
        point[axis][k] = rays.direction[axis][k] * rays.farthest[k] + rays.origin[axis][k];
      }
    }
  }

  // Adds the lamp's light, less of it where something stands before it.
  void lamp() {
    alignas(64) int asked[kLanes];
    float strength[kLanes];
    bool any = false;
    for (int k = 0; k < kLanes; ++k) {
      asked[k] = 0;
      if (!hit[k]) continue;
      const float to[3] = {s.lamp[0] - point[0][k], s.lamp[1] - point[1][k], s.lamp[2] - point[2][k]};
      const float square = std::max(to[0] * to[0] + to[1] * to[1] + to[2] * to[2], 1e-3f);
      const float towards = normal[0][k] * to[0] + normal[1][k] * to[1] + normal[2][k] * to[2];
      const float facing = std::max(towards / std::sqrt(square), 0.0f);
      strength[k] = s.lamp_strength * facing * 8.0f / (4.0f + square);
      if (!s.shadows || !(facing > 0)) continue;
      float from[3];
      for (int axis = 0; axis < 3; ++axis) from[axis] = point[axis][k] + normal[axis][k] * 5e-3f;
      rays.set(k, from, to, 1);
      asked[k] = -1;
      any = true;
    }
    if (any) {  // not called coherent: Embree 4.4 ends with a fault on such under AVX-512
      const Arguments packet{0, kNone, &context, nullptr, nullptr, 0};
      s.occluded16(asked, s.scene, &rays, &packet);
    }
    for (int k = 0; k < kLanes; ++k) {
      if (asked[k] && rays.farthest[k] < 0) strength[k] = float(double(strength[k]) * 0.35);
      if (hit[k]) light[k] = light[k] + strength[k];
    }
  }

  void paint() {
    for (int k = 0; k < kLanes; ++k) {
      if (!inside[k]) continue;
      for (int channel = 0; channel < 3; ++channel) {
        const float value = hit[k] ? color[channel][k] * light[k] * s.tint[channel] : 0;
        if (p.color) p.color[3 * index[k] + channel] = value;
        if (p.bytes) {
          const float shown = (hit[k] ? value : s.background[channel]) * 255.0f + 0.5f;
          p.bytes[3 * index[k] + channel] = uint8_t(std::min(std::max(shown, 0.0f), 255.0f));
        }
      }
    }
  }

  const Surfaces& s;
  const Picture& p;
  const int across;
  Rays<kLanes> rays;
  Rays<1> single;
  Context context;
  alignas(64) int inside[kLanes];  // -1 or 0, as Embree wants it
  bool hit[kLanes];
  int64_t index[kLanes], face[kLanes];
  float light[kLanes], point[3][kLanes], normal[3][kLanes], color[3][kLanes];
};

}  // namespace

extern "C" {

// Follows the rays of a picture, and writes what is wanted of what they meet.
void xm_cast(const Surfaces* surfaces, const Picture* picture) {
  Tile tile(*surfaces, *picture);
  for (int64_t top = 0; top < picture->height; top += tile.rows())
    for (int64_t left = 0; left < picture->width; left += tile.columns()) tile.draw(top, left);
}

// Unit normals (count x 3) of triangles, zero where a triangle is none.
void xm_normals(const float* vertices, const int32_t* faces, int64_t count, float* normals) {
  for (int64_t i = 0; i < count; ++i) {
    const float* corner[3];
    for (int k = 0; k < 3; ++k) corner[k] = vertices + 3 * int64_t(faces[3 * i + k]);
    double u[3], v[3];
    for (int axis = 0; axis < 3; ++axis) {
      u[axis] = double(corner[1][axis]) - corner[0][axis];
      v[axis] = double(corner[2][axis]) - corner[0][axis];
    }
    const double x = u[1] * v[2] - u[2] * v[1], y = u[2] * v[0] - u[0] * v[2], z = u[0] * v[1] - u[1] * v[0];
    const double length = std::max(std::sqrt(x * x + y * y + z * z), 1e-20);
    normals[3 * i] = float(x / length);
    normals[3 * i + 1] = float(y / length);
    normals[3 * i + 2] = float(z / length);
  }
}

}  // extern "C"
