#include "wire/socket.h"

#include <arpa/inet.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <zmq.hpp>

#include "core/checksum.h"
#include "core/error.h"
#include "wire/inflow.h"

namespace qanat::wire {
namespace {

constexpr std::uint32_t magic = 0x544e4151;  // "QANT"

constexpr int refused_at_once = 256;

// A message with so many parts is taken for one that never ends. Fewer than that are taken in and refused by name.
constexpr std::uint64_t endless_parts = 10'000;

// Each connection has something to send this often, and ends when the other side's system has acknowledged nothing of
// what was sent for the second time: its network is cut, while a process that is only stopped or busy has a system that
// answers. What takes long on a slow link is acknowledged as it goes.
constexpr Milliseconds ping_every{1000};
constexpr Milliseconds unacknowledged{4000};
// Silence of a peer whose system does answer. A large frame keeps its connection silent for as long as it takes.
constexpr Milliseconds silent_peer{60'000};
// An attempt to connect, and then the exchange of greetings; both are tried again.
constexpr Milliseconds attempt{2000};
constexpr Milliseconds greeting{5000};
// Between two attempts, at least; doubled up to the second. At most ten a second to a peer that closes at once.
constexpr Milliseconds reconnect_first{100};
constexpr Milliseconds reconnect_last{1000};

int count(Milliseconds time) { return static_cast<int>(time.count()); }

// A message's first frame: this, the head, and the checksum of each part. Little-endian, as every machine we run on.
struct Envelope {
  std::uint32_t magic;
  std::uint16_t protocol;
  std::uint16_t type;
  std::uint32_t head_bytes;
  std::uint32_t parts;
  std::uint64_t checksum;  // of all the above, what follows in the frame, and each part's size
};
static_assert(sizeof(Envelope) == 24);

zmq_msg_t* raw(void* storage) { return static_cast<zmq_msg_t*>(storage); }

std::uint64_t checksum_of(const Envelope& envelope, std::span<const std::byte> rest, std::span<const Frame> parts) {
  Checksum sum;
  sum.add(std::as_bytes(std::span(&envelope, 1)).first(offsetof(Envelope, checksum)));
  sum.add(rest);
  for (const auto& part : parts) {
    const std::uint64_t bytes = part.size();
    sum.add(std::as_bytes(std::span(&bytes, 1)));
  }
  return sum.value();
}

// ZeroMQ's calls end with EINTR when a signal comes at the wrong moment, between two parts of a message as well:
// a signal must neither tear a message nor look like a failed socket. False: would block.
bool send_part(zmq_msg_t* part, zmq::socket_t& socket, int flags) {
  for (;;) {
    if (zmq_msg_send(part, socket.handle(), flags) >= 0) return true;
    if (zmq_errno() == EAGAIN) return false;
    if (zmq_errno() != EINTR) throw zmq::error_t();
  }
}

bool receive_part(zmq_msg_t* part, zmq::socket_t& socket) {
  for (;;) {
    if (zmq_msg_recv(part, socket.handle(), ZMQ_DONTWAIT) >= 0) return true;
    if (zmq_errno() == EAGAIN) return false;
    if (zmq_errno() != EINTR) throw zmq::error_t();
  }
}

// What stands before the bytes of a frame that is counted.
struct alignas(std::max_align_t) Counted {
  std::shared_ptr<HeldBytes> held;
  std::uint64_t bytes;
};

void release(void* /*data*/, void* hint) {
  auto* const counted = static_cast<Counted*>(hint);
  counted->held->fetch_sub(counted->bytes, std::memory_order_relaxed);  // a lone number: nothing is ordered by it
  std::destroy_at(counted);
  ::operator delete(hint);
}

bool is_ip(const char* address) {
  in6_addr parsed;  // room for either
  return inet_pton(AF_INET, address, &parsed) == 1 || inet_pton(AF_INET6, address, &parsed) == 1;
}

zmq::socket_type type_of(SocketKind kind) {
  switch (kind) {
    case SocketKind::router:
      return zmq::socket_type::router;
    case SocketKind::dealer:
      return zmq::socket_type::dealer;
    case SocketKind::publisher:
      return zmq::socket_type::pub;
    case SocketKind::subscriber:
      return zmq::socket_type::sub;
  }
  return zmq::socket_type::dealer;
}

}  // namespace

std::string library_version() {
  const auto [major, minor, patch] = zmq::version();
  return text(major, '.', minor, '.', patch);
}

Frame::Frame() { zmq_msg_init(raw(storage_)); }

Frame::Frame(std::size_t bytes) {
  if (zmq_msg_init_size(raw(storage_), bytes) != 0)
    throw SystemError(text("no memory for a frame of ", bytes, " bytes"));
}

Frame::Frame(std::size_t bytes, std::shared_ptr<HeldBytes> held) {
  if (!held) {
    zmq_msg_init(raw(storage_));
    *this = Frame(bytes);
    return;
  }
  void* const memory = ::operator new(sizeof(Counted) + bytes);
  held->fetch_add(bytes, std::memory_order_relaxed);
  auto* const counted = new (memory) Counted{std::move(held), bytes};
  if (zmq_msg_init_data(raw(storage_), counted + 1, bytes, release, counted) != 0) {
    release(nullptr, counted);
    throw SystemError(text("no memory for a frame of ", bytes, " bytes"));
  }
}

Frame::~Frame() { zmq_msg_close(raw(storage_)); }

Frame::Frame(Frame&& other) noexcept : Frame() { *this = std::move(other); }

Frame& Frame::operator=(Frame&& other) noexcept {
  if (this == &other) return *this;
  zmq_msg_move(raw(storage_), raw(other.storage_));
  checksum_ = std::exchange(other.checksum_, std::nullopt);
  sent_checksum_ = std::exchange(other.sent_checksum_, std::nullopt);
  return *this;
}

Frame Frame::copy_of(std::span<const std::byte> bytes) {
  Frame frame(bytes.size());
  if (!bytes.empty()) std::memcpy(frame.mutable_bytes().data(), bytes.data(), bytes.size());
  return frame;
}

std::span<const std::byte> Frame::bytes() const {
  auto* message = raw(storage_);
  return {static_cast<const std::byte*>(zmq_msg_data(message)), zmq_msg_size(message)};
}

std::span<std::byte> Frame::mutable_bytes() {
  checksum_.reset();
  auto* message = raw(storage_);
  return {static_cast<std::byte*>(zmq_msg_data(message)), zmq_msg_size(message)};
}

Frame Frame::share() {
  Frame twin;
  zmq_msg_copy(raw(twin.storage_), raw(storage_));
  twin.checksum_ = checksum_;
  twin.sent_checksum_ = sent_checksum_;
  return twin;
}

std::uint64_t Frame::checksum() const {
  if (!checksum_) checksum_ = qanat::checksum(bytes());
  return *checksum_;
}

static_assert(sizeof(zmq_msg_t) <= 64);

Traffic& Traffic::operator+=(const Traffic& other) {
  messages_in += other.messages_in;
  messages_out += other.messages_out;
  bytes_in += other.bytes_in;
  bytes_out += other.bytes_out;
  refused += other.refused;
  return *this;
}

struct Context::Impl {
  // As many sockets as a learner of the most shards (replay.shards) needs.
  explicit Impl(int threads) : io_threads(threads), context(threads, 16384) {}
  int io_threads;
  zmq::context_t context;
};

Context::Context(int io_threads) : impl_(std::make_unique<Impl>(io_threads)) {}
Context::~Context() = default;

struct Socket::Impl {
  Impl(zmq::context_t& context, SocketKind socket_kind, SocketOptions socket_options)
      : socket(context, type_of(socket_kind)), kind(socket_kind), options(std::move(socket_options)) {}

  ~Impl();
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void configure(zmq::context_t& context, int io_threads);
  void watch(zmq::context_t& context);
  // For the endpoint that comes next. Not for all: with it ZeroMQ prefers a name's IPv6 address, where often nobody
  // listens.
  void speak_ipv6(const std::string& endpoint) { socket.set(zmq::sockopt::ipv6, endpoint.starts_with("tcp://[")); }
  std::optional<Incoming> receive_raw(bool& got_any);
  bool check(std::vector<Frame>& frames, Incoming& out);
  bool refuse(std::string why) {
    ++traffic.refused;
    refusal = std::move(why);
    return false;
  }

  zmq::socket_t socket;
  std::optional<zmq::socket_t> events;
  std::uint64_t connections = 0;
  SocketKind kind;
  SocketOptions options;
  Traffic traffic;
  std::string refusal;
};

Socket::Socket(Context& context, SocketKind kind, SocketOptions options) try
    : impl_(std::make_unique<Impl>(context.impl_->context, kind, std::move(options))) {
  impl_->configure(context.impl_->context, context.impl_->io_threads);
} catch (const zmq::error_t& error) {
  throw SystemError(text("cannot make a socket: ", error.what()));
}

void Socket::Impl::configure(zmq::context_t& context, int io_threads) {
  socket.set(zmq::sockopt::linger, static_cast<int>(options.linger.count()));
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(options.max_frame_bytes));
  socket.set(zmq::sockopt::sndhwm, options.send_queue);
  socket.set(zmq::sockopt::rcvhwm, options.receive_queue);
  socket.set(zmq::sockopt::reconnect_ivl, count(reconnect_first));
  socket.set(zmq::sockopt::reconnect_ivl_max, count(reconnect_last));
  socket.set(zmq::sockopt::connect_timeout, count(attempt));
  socket.set(zmq::sockopt::handshake_ivl, count(greeting));
  socket.set(zmq::sockopt::heartbeat_ivl, count(ping_every));
  socket.set(zmq::sockopt::heartbeat_timeout, count(silent_peer));
  socket.set(zmq::sockopt::heartbeat_ttl, count(silent_peer));
  socket.set(zmq::sockopt::tcp_maxrt, count(unacknowledged));
  if (kind == SocketKind::router) {
    socket.set(zmq::sockopt::router_mandatory, true);
    socket.set(zmq::sockopt::router_handover, true);
  }
  if (options.io_thread >= 0 && io_threads > 0) {
    socket.set(zmq::sockopt::affinity, std::uint64_t{1} << (options.io_thread % std::min(io_threads, 64)));
  }
  if (!options.identity.empty()) socket.set(zmq::sockopt::routing_id, options.identity);
  if (kind == SocketKind::subscriber) socket.set(zmq::sockopt::subscribe, "");
  if (options.watched) watch(context);
}

// ZeroMQ's I/O thread reports connections to a socket of ours, and would wait for room in its queue: there is no end to
// that, and reporting stops before the socket goes.
void Socket::Impl::watch(zmq::context_t& context) {
  static std::atomic<std::uint64_t> number{0};
  const auto address = text("inproc://connections-", ++number);
  events.emplace(context, zmq::socket_type::pair);
  events->set(zmq::sockopt::rcvhwm, 0);
  events->set(zmq::sockopt::linger, 0);
  if (zmq_socket_monitor(socket.handle(), address.c_str(), ZMQ_EVENT_HANDSHAKE_SUCCEEDED) != 0) throw zmq::error_t();
  events->connect(address);
}

Socket::Impl::~Impl() {
  if (events) zmq_socket_monitor(socket.handle(), nullptr, 0);
}

std::uint64_t Socket::connections() {
  if (!impl_->events) return 0;
  // An event is two frames; one kind is asked for, so what they say is known.
  zmq::message_t frame;
  while (receive_part(frame.handle(), *impl_->events)) impl_->connections += frame.more() ? 0 : 1;
  return impl_->connections;
}

Socket::~Socket() = default;
Socket::Socket(Socket&&) noexcept = default;
Socket& Socket::operator=(Socket&&) noexcept = default;

std::string Socket::bind(const std::string& endpoint) {
  try {
    impl_->speak_ipv6(endpoint);
    impl_->socket.bind(endpoint);
  } catch (const zmq::error_t& error) {
    throw SystemError(text("cannot bind to ", endpoint, ": ", error.what()));
  }
  auto real = impl_->socket.get(zmq::sockopt::last_endpoint);
  if (!real.starts_with("inproc:")) limit_messages(real, {2 * impl_->options.max_frame_bytes, endless_parts});
  return real;
}

void Socket::connect(const std::string& endpoint) {
  try {
    impl_->speak_ipv6(endpoint);
    impl_->socket.connect(endpoint);
  } catch (const zmq::error_t& error) {
    throw SystemError(text("cannot connect to ", endpoint, ": ", error.what(),
                           "; wanted tcp://HOST:PORT, ipc://PATH or inproc://NAME"));
  }
}

Sent Socket::send(Message& message) { return send_to({}, message); }

Sent Socket::send_to(std::string_view peer, Message& message) {
  auto& socket = impl_->socket;
  Envelope envelope{magic,
                    protocol_version,
                    message.type,
                    static_cast<std::uint32_t>(message.head.size()),
                    static_cast<std::uint32_t>(message.parts.size()),
                    0};
  try {
    zmq::message_t first(sizeof envelope + message.head.size() + sizeof(std::uint64_t) * message.parts.size());
    auto* const rest = static_cast<std::byte*>(first.data()) + sizeof envelope;
    auto* to = std::copy(message.head.begin(), message.head.end(), rest);
    for (const auto& part : message.parts) {
      const auto checksum = part.checksum();
      std::memcpy(to, &checksum, sizeof checksum);
      to += sizeof checksum;
    }
    envelope.checksum = checksum_of(envelope, {rest, to}, message.parts);
    std::memcpy(first.data(), &envelope, sizeof envelope);
    std::size_t bytes = first.size();
    if (impl_->kind == SocketKind::router) {
      zmq::message_t address(peer.data(), peer.size());
      if (!send_part(address.handle(), socket, ZMQ_SNDMORE | ZMQ_DONTWAIT)) return Sent::would_block;
    }
    const int more = message.parts.empty() ? 0 : ZMQ_SNDMORE;
    if (!send_part(first.handle(), socket, more | ZMQ_DONTWAIT)) return Sent::would_block;
    // Once the first part is taken, ZeroMQ takes the rest: multipart messages are atomic.
    for (std::size_t i = 0; i < message.parts.size(); ++i) {
      bytes += message.parts[i].size();
      (void)send_part(raw(message.parts[i].native()), socket, i + 1 < message.parts.size() ? ZMQ_SNDMORE : 0);
    }
    ++impl_->traffic.messages_out;
    impl_->traffic.bytes_out += bytes;
  } catch (const zmq::error_t& error) {
    if (error.num() == EHOSTUNREACH) return Sent::unreachable;
    throw SystemError(text("sending failed: ", error.what()));
  }
  return Sent::yes;
}

bool Socket::Impl::check(std::vector<Frame>& frames, Incoming& out) {
  const auto first = frames.front().bytes();
  const auto parts = std::span(frames).subspan(1);
  Envelope envelope;
  if (first.size() < sizeof envelope)
    return refuse(text("first frame has ", first.size(), " bytes, wanted at least 24"));
  std::memcpy(&envelope, first.data(), sizeof envelope);
  if (envelope.magic != magic) return refuse("not a Qanat message");
  if (envelope.protocol != protocol_version) {
    return refuse(text("protocol version ", envelope.protocol, ", wanted ", protocol_version));
  }
  const auto rest = first.subspan(sizeof envelope);
  if (envelope.parts != parts.size() ||
      rest.size() != std::size_t{envelope.head_bytes} + sizeof(std::uint64_t) * parts.size()) {
    return refuse(text("sizes in the envelope (head ", envelope.head_bytes, ", parts ", envelope.parts,
                       ") are not those received (", rest.size(), " bytes behind it, ", parts.size(), " parts)"));
  }
  if (checksum_of(envelope, rest, parts) != envelope.checksum) return refuse("checksum mismatch");
  const auto* from = rest.data() + envelope.head_bytes;
  for (std::size_t i = 0; i < parts.size(); ++i, from += sizeof(std::uint64_t)) {
    std::uint64_t sent = 0;
    std::memcpy(&sent, from, sizeof sent);
    parts[i].set_sent_checksum(sent);
    if (options.check_parts && !parts[i].intact()) return refuse(text("checksum mismatch of part ", i));
  }
  out.type = envelope.type;
  out.head.assign(rest.begin(), rest.begin() + envelope.head_bytes);
  return true;
}

std::optional<Incoming> Socket::Impl::receive_raw(bool& got_any) {
  got_any = false;
  Incoming incoming;
  std::vector<Frame> frames;
  bool more = true;
  bool first = true;
  std::size_t bytes = 0;
  std::size_t surplus = 0;
  std::size_t too_large = 0;
  while (more) {
    zmq::message_t part;
    if (!receive_part(part.handle(), socket)) return std::nullopt;
    got_any = true;
    more = part.more();
    if (first && kind == SocketKind::router) {
      incoming.peer = part.to_string();
    } else if (frames.size() <= options.max_parts) {
      bytes += part.size();
      // Over tcp and ipc ZeroMQ has closed such a connection already; inproc knows no limit.
      if (part.size() > options.max_frame_bytes) too_large = part.size();
      Frame frame;
      if (frames.empty() && kind != SocketKind::subscriber) {
        // For ipc ZeroMQ says "localhost:UID:GID:PID".
        const char* address = zmq_msg_gets(part.handle(), "Peer-Address");
        if (address && is_ip(address)) incoming.address = address;
      }
      zmq_msg_move(raw(frame.native()), part.handle());
      frames.push_back(std::move(frame));
    } else {
      ++surplus;
    }
    first = false;
  }
  ++traffic.messages_in;
  traffic.bytes_in += bytes;
  if (surplus > 0) {
    refuse(text("message has more than ", options.max_parts, " parts"));
    return std::nullopt;
  }
  if (too_large > 0) {
    refuse(text("message has a part of ", too_large, " bytes, wanted at most ", options.max_frame_bytes));
    return std::nullopt;
  }
  if (frames.empty()) {
    refuse("message has no frame");
    return std::nullopt;
  }
  if (!check(frames, incoming)) return std::nullopt;
  incoming.parts.assign(std::make_move_iterator(frames.begin() + 1), std::make_move_iterator(frames.end()));
  return incoming;
}

std::optional<Incoming> Socket::receive() {
  // A peer that floods us with nonsense gets no more than this of a caller's time before others have their turn.
  for (int refused = 0; refused < refused_at_once; ++refused) {
    bool got_any = false;
    try {
      auto incoming = impl_->receive_raw(got_any);
      if (incoming || !got_any) return incoming;
    } catch (const zmq::error_t& error) {
      throw SystemError(text("receiving failed: ", error.what()));
    }
  }
  return std::nullopt;
}

void Socket::refuse(std::string why) { impl_->refuse(std::move(why)); }

std::vector<Incoming> Socket::receive_all(std::size_t limit) {
  std::vector<Incoming> all;
  while (all.size() < limit) {
    auto incoming = receive();
    if (!incoming) break;
    all.push_back(std::move(*incoming));
  }
  std::stable_sort(all.begin(), all.end(), [](const Incoming& a, const Incoming& b) { return a.peer < b.peer; });
  return all;
}

const Traffic& Socket::traffic() const { return impl_->traffic; }
const std::string& Socket::last_refusal() const { return impl_->refusal; }

void wait(std::span<Socket* const> sockets, Milliseconds timeout) {
  std::vector<zmq::pollitem_t> items;
  items.reserve(sockets.size());
  for (auto* socket : sockets) items.push_back({socket->impl_->socket.handle(), 0, ZMQ_POLLIN, 0});
  try {
    zmq::poll(items, timeout);
  } catch (const zmq::error_t& error) {
    if (error.num() != EINTR) throw SystemError(text("polling failed: ", error.what()));
  }
}

}  // namespace qanat::wire
