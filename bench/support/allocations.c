/* Counts the bytes that torch's CPU allocator has given out: it alone asks for blocks aligned to 64 bytes, from whatever thread,
   and lets go of them in whatever thread. Loaded with LD_PRELOAD; most_given_out() starts again at what lives. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define SLOTS (1u << 20)
#define GONE ((void *)1)

static struct { void *place; size_t size; } table[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t live, most;
static int (*real_memalign)(void **, size_t, size_t);
static void (*real_free)(void *);

static unsigned slot_of(void *place) {
    return (unsigned)(((uintptr_t)place >> 6) * 0x9E3779B97F4A7C15ull >> 44) & (SLOTS - 1);
}

int posix_memalign(void **place, size_t alignment, size_t size) {
    if (!real_memalign) real_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    int failed = real_memalign(place, alignment, size);
    if (failed || alignment != 64) return failed;
    pthread_mutex_lock(&lock);
    unsigned slot = slot_of(*place);
    while (table[slot].place && table[slot].place != GONE) slot = (slot + 1) & (SLOTS - 1);
    table[slot].place = *place;
    table[slot].size = size;
    live += size;
    if (live > most) most = live;
    pthread_mutex_unlock(&lock);
    return 0;
}

void free(void *place) {
    if (!real_free) real_free = dlsym(RTLD_NEXT, "free");
    if (place && !((uintptr_t)place & 63)) {
        pthread_mutex_lock(&lock);
        unsigned slot = slot_of(place);
        while (table[slot].place && table[slot].place != place) slot = (slot + 1) & (SLOTS - 1);
        if (table[slot].place == place) {
            live -= table[slot].size;
            table[slot].place = GONE;
        }
        pthread_mutex_unlock(&lock);
    }
    real_free(place);
}

size_t most_given_out(void) {
    pthread_mutex_lock(&lock);
    size_t found = most;
    most = live;
    pthread_mutex_unlock(&lock);
    return found;
}

size_t given_out(void) { return live; }
