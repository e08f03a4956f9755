package zkproc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// secureJars are what a server needs beside jar to speak TLS: Debian's manifest leaves them out, its package netty has them.
const secureJars = ":/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar"

// Certificates are files in PEM: of an authority, and of a client that it vouches for.
type Certificates struct {
	Authority, Client, ClientKey string

	server string // certificate and key
}

// makeCertificates writes the files for servers at 127.0.0.1 into dir.
func makeCertificates(dir string) (*Certificates, error) {
	c := &Certificates{
		Authority: filepath.Join(dir, "authority.pem"), Client: filepath.Join(dir, "client.pem"), ClientKey: filepath.Join(dir, "client-key.pem"),
		server: filepath.Join(dir, "server.pem"),
	}
	root := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	authority, authorityKey, rootPEM, _, err := sign("the authority", root, nil, nil)
	if err != nil {
		return nil, err
	}
	server := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	_, _, serverPEM, serverKey, err := sign("the server", server, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	client := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	_, _, clientPEM, clientKey, err := sign("a client", client, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		c.Authority: rootPEM, c.Client: clientPEM, c.ClientKey: clientKey, c.server: append(serverPEM, serverKey...),
	} {
		err = errors.Join(err, os.WriteFile(name, data, 0o600))
	}
	return c, err
}

// sign makes a key and a certificate for it, signed by parent, or by itself.
func sign(name string, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM []byte, err error) {
	fail := func(err error) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte, error) {
		return nil, nil, nil, nil, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return fail(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return fail(err)
	}
	c.Subject, c.NotBefore, c.NotAfter = pkix.Name{CommonName: name}, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		return fail(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return fail(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, key, certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// Config is what a client needs.
func (c *Certificates) Config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Client, c.ClientKey)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(c.Authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("the authority's certificate cannot be read")
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// properties are the lines of a server's configuration.
func (c *Certificates) properties(port int) string {
	return fmt.Sprintf("secureClientPort=%d\nsecureClientPortAddress=127.0.0.1\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"+
		"ssl.keyStore.location=%s\nssl.keyStore.type=PEM\nssl.trustStore.location=%s\nssl.trustStore.type=PEM\nssl.clientAuth=need\n", port, c.server, c.Authority)
}
