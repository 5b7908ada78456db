/* A disk that misbehaves when a file says so, preloaded by the drills. In the directory QANAT_DISK:
 *   full   writes of regular files below QANAT_DISK_OF fail with ENOSPC
 *   slow   fsync and fdatasync take as many seconds more as the file's text says */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char* told(const char* name, char* path, size_t size) {
  const char* place = getenv("QANAT_DISK");
  if (!place) return NULL;
  snprintf(path, size, "%s/%s", place, name);
  return access(path, F_OK) == 0 ? path : NULL;
}

static int is_full(int fd) {
  char path[512], link[64], target[4096];
  struct stat about;
  const int before = errno;
  int full = 0;
  if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && told("full", path, sizeof path)) {
    const char* of = getenv("QANAT_DISK_OF");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, target, sizeof target);
    full = of && size > (ssize_t)strlen(of) && strncmp(target, of, strlen(of)) == 0;
  }
  errno = before;
  return full;
}

static void be_slow(void) {
  char path[512], text[32] = "";
  const int before = errno;
  if (told("slow", path, sizeof path)) {
    FILE* file = fopen(path, "r");
    if (file) {
      if (!fgets(text, sizeof text, file)) text[0] = 0;
      fclose(file);
      const double seconds = atof(text);
      struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
      while (nanosleep(&left, &left) != 0) {
      }
    }
  }
  errno = before;
}

ssize_t write(int fd, const void* bytes, size_t size) {
  static ssize_t (*next)(int, const void*, size_t);
  if (!next) next = (ssize_t(*)(int, const void*, size_t))dlsym(RTLD_NEXT, "write");
  if (is_full(fd)) {
    errno = ENOSPC;
    return -1;
  }
  return next(fd, bytes, size);
}

static int synced(const char* name, int fd) {
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  be_slow();
  return next(fd);
}
int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }
