// Whether there are tiles, and whether they are wanted.
#include "tiles.h"

#include <atomic>

#ifdef XM_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

std::atomic<bool> wanted{true};

bool allowed() {
#ifdef XM_TILES
  // Linux gives a process the memory for tiles on request only; its threads, and those to come, share the permission.
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool answer = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return answer;
#else
  return false;
#endif
}

}  // namespace

bool tiles_used() { return wanted && allowed(); }

extern "C" {

int xm_has_tiles() { return allowed(); }

// Let the loops use tiles where they can (the default), or not; returns what was so before. Weights are packed for the
// one or the other.
int xm_want_tiles(int want) { return wanted.exchange(want != 0); }

}  // extern "C"
