package server

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// splitTimeout is how long a peer may take until it is known what it speaks:
	// its TLS handshake, or the first bytes of its request.
	splitTimeout = 5 * time.Second
	// splitPending is how many such peers are waited for at once.
	splitPending = 512
	// splitConns is how many connections there may be in all; the newest is refused.
	splitConns = 10_000

	protoHTTP2 = "h2"
	protoHTTP1 = "http/1.1"
	// prefacePrefix begins every HTTP/2 connection (RFC 9113 section 3.4) and no
	// HTTP/1 request: PRI is no method.
	prefacePrefix = "PRI"
)

// split serves native gRPC and net/http on one port. It decides once per
// connection, and hands the connection itself over, so neither server pays for
// the other:
//
//   - With TLS by ALPN: who offers h2 and not http/1.1 is a gRPC client. Browsers
//     and curl offer both and get HTTP/1.1, as does who offers nothing.
//   - On plaintext by the first three bytes.
//
// No peer can hold up another: handshakes run beside the accept loop, end after
// splitTimeout, and where splitPending of them are under way the oldest gives way
// to the newest. An honest handshake takes milliseconds and is never the oldest
// of many; a peer that sends nothing is.
type split struct {
	listener net.Listener
	tls      *tls.Config // nil on plaintext
	logger   *slog.Logger
	timeout  time.Duration
	pending  pendingPeers
	maxConns int64
	conns    atomic.Int64
	grpc     *branch
	http     *branch

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	peers  sync.WaitGroup
}

// newSplit splits the connections of l. It owns l from now on. A nil tlsConfig
// means plaintext; its NextProtos and GetConfigForClient are replaced.
func newSplit(l net.Listener, tlsConfig *tls.Config, logger *slog.Logger) *split {
	s := &split{
		listener: l,
		logger:   logger,
		timeout:  splitTimeout,
		pending:  pendingPeers{max: splitPending},
		maxConns: splitConns,
		grpc:     newBranch(l.Addr()),
		http:     newBranch(l.Addr()),
	}
	if tlsConfig != nil {
		s.tls = splitTLS(tlsConfig)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// GRPC returns the listener for the gRPC server. Its TLS connections have done
// their handshake; see Credentials.
func (s *split) GRPC() net.Listener { return s.grpc }

// HTTP returns the listener for the HTTP server. Its TLS connections are
// *tls.Conn, so requests carry their TLS state.
func (s *split) HTTP() net.Listener { return s.http }

// Addr is the address both share.
func (s *split) Addr() net.Addr { return s.listener.Addr() }

// Credentials must be those of the gRPC server on GRPC().
func (s *split) Credentials() credentials.TransportCredentials { return splitCredentials{} }

// GRPCOnly returns l for the gRPC server alone, with the TLS of the split: for load
// balancers that offer h2 and http/1.1 to whatever they forward to, whom ALPN
// would send to the HTTP server.
func (s *split) GRPCOnly(l net.Listener) net.Listener {
	if s.tls == nil {
		return l
	}
	config := s.tls.Clone()
	config.NextProtos, config.GetConfigForClient = []string{protoHTTP2}, nil
	return tls.NewListener(l, config)
}

// Serve accepts until Close, and then returns nil when no handshake is left.
// An error of the listener other than a passing one ends it early.
func (s *split) Serve() error {
	defer s.peers.Wait()
	var delay time.Duration
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			delay = 0
			if conn, ok := s.count(conn); ok {
				s.begin(conn)
			}
			continue
		}
		if s.ctx.Err() != nil {
			return nil
		}
		if !passing(err) {
			return errors.Join(fmt.Errorf("accept: %w", err), s.Close())
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.logger.Warn("cannot accept connections for now", "error", err.Error(), "retry_after", delay.String())
		select {
		case <-time.After(delay):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// count enters a connection until it is closed, and closes it where there are too many.
func (s *split) count(conn net.Conn) (net.Conn, bool) {
	if s.conns.Add(1) > s.maxConns {
		s.conns.Add(-1)
		conn.Close()
		return nil, false
	}
	return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { s.conns.Add(-1) })}, true
}

// countedConn is a connection of a split.
type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// CloseWrite is passed on; see that of replayConn.
func (c *countedConn) CloseWrite() error { return closeWrite(c.Conn) }

// passing tells "too many open files", and what else the system reports for one
// connection, from a listener that is broken.
func passing(err error) bool {
	var t interface{ Temporary() bool }
	return !errors.Is(err, net.ErrClosed) && errors.As(err, &t) && t.Temporary()
}

// Close stops accepting and drops the connections that are still being sorted.
// Those handed over belong to their servers. It may be called more than once.
func (s *split) Close() error {
	s.cancel()
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.grpc.Close(), s.http.Close())
}

// begin enters conn among the pending peers, in the order of arrival, and sorts it
// beside the accept loop. The time limit, an eviction and Close all end its ctx.
func (s *split) begin(conn net.Conn) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	remove := s.pending.add(cancel)
	s.peers.Go(func() {
		defer cancel()
		defer remove()
		s.admit(ctx, conn)
	})
}

// admit finds out what conn speaks and hands it over. The end of ctx closes conn
// whatever it is blocked in; after stop() has succeeded nothing does any more.
func (s *split) admit(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	sorted, to, err := s.sort(ctx, conn)
	if !stop() {
		err = context.Cause(ctx) // conn is closed, or will be at any moment
	}
	if err == nil && !to.deliver(ctx, sorted) {
		err = net.ErrClosed
	}
	if err != nil {
		conn.Close()
		s.logger.Debug("connection dropped before its first request", "peer", conn.RemoteAddr().String(), "error", err.Error())
	}
}

// sort returns the connection to hand over and to which server.
func (s *split) sort(ctx context.Context, conn net.Conn) (net.Conn, *branch, error) {
	if s.tls != nil {
		secure := tls.Server(conn, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, nil, err
		}
		if secure.ConnectionState().NegotiatedProtocol == protoHTTP2 {
			return secure, s.grpc, nil
		}
		return secure, s.http, nil
	}
	// Every HTTP/1 request is longer than the prefix, so nobody waits in vain here.
	first := make([]byte, len(prefacePrefix))
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, nil, err
	}
	replayed := &replayConn{Conn: conn, first: first}
	if string(first) == prefacePrefix {
		return replayed, s.grpc, nil
	}
	return replayed, s.http, nil
}

// splitTLS returns base with ALPN chosen per client. Both answers are made once,
// so that session tickets stay valid from one connection to the next.
func splitTLS(base *tls.Config) *tls.Config {
	forGRPC, forHTTP, config := base.Clone(), base.Clone(), base.Clone()
	forGRPC.NextProtos, forGRPC.GetConfigForClient = []string{protoHTTP2}, nil
	forHTTP.NextProtos, forHTTP.GetConfigForClient = []string{protoHTTP1}, nil
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offers := hello.SupportedProtos
		if slices.Contains(offers, protoHTTP2) && !slices.Contains(offers, protoHTTP1) {
			return forGRPC, nil
		}
		return forHTTP, nil
	}
	return config
}

// pendingPeers holds the cancel functions of the peers that are being sorted,
// oldest first, and never more than max.
type pendingPeers struct {
	max   int
	mu    sync.Mutex
	peers list.List // of context.CancelFunc
}

// add enters a peer, in the place of the oldest where all are taken, and returns
// what takes it out again.
func (p *pendingPeers) add(cancel context.CancelFunc) (remove func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peers.Len() >= p.max {
		oldest := p.peers.Front()
		p.peers.Remove(oldest).(context.CancelFunc)()
	}
	entry := p.peers.PushBack(cancel)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.peers.Remove(entry) // does nothing where the entry was evicted
	}
}

// branch is the listener of one of the two servers.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newBranch(addr net.Addr) *branch {
	return &branch{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver hands conn to Accept and reports whether that came about before ctx or
// the branch ended.
func (b *branch) deliver(ctx context.Context, conn net.Conn) bool {
	select {
	case b.conns <- conn:
		return true
	case <-b.closed:
	case <-ctx.Done():
	}
	return false
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It ends this branch only: connections of its
// kind are dropped from now on.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }

// replayConn gives back the bytes that were read to sort the connection.
type replayConn struct {
	net.Conn
	first []byte
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// CloseWrite lets net/http end an answer while the peer is still sending. Without
// it the connection is reset, and a peer that sent too much may never read why.
func (c *replayConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	return half.CloseWrite()
}

// splitCredentials tells gRPC about connections whose security is settled: the
// state of a TLS connection, peer certificates included, or that there is none.
type splitCredentials struct{}

// ServerHandshake implements credentials.TransportCredentials. For a connection
// of a split the TLS handshake is over and this adds none; for one of GRPCOnly it
// does it, under the deadline that gRPC has set.
func (splitCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return nil, nil, err
	}
	state := secure.ConnectionState()
	if state.NegotiatedProtocol != protoHTTP2 {
		return nil, nil, fmt.Errorf("gRPC needs ALPN %s, the peer agreed on %q", protoHTTP2, state.NegotiatedProtocol)
	}
	return secure, credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// ClientHandshake implements credentials.TransportCredentials; these are for servers.
func (splitCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

// Info implements credentials.TransportCredentials.
func (splitCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (c splitCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials; it is for clients.
func (splitCredentials) OverrideServerName(string) error { return nil }
