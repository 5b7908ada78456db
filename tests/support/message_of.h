// What a call is refused with.
#pragma once

#include <string>
#include <utility>

#include "core/error.h"

namespace qanat {

template <class Call>
std::string message_of(Call&& call) {
  try {
    std::forward<Call>(call)();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace qanat
