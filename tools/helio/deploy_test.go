package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// deployed reads a file of infra/deploy.
func deployed(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "infra", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// strict decodes a document of YAML, in which a key that v does not have is an error.
func strict(t *testing.T, b []byte, v any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in:\n%.300s", err, b)
	}
}

// imageEnv are the variables that the image sets.
func imageEnv(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	variable := regexp.MustCompile(`(HELIO_[A-Z_]+)=(\S+)`)
	for _, pair := range variable.FindAllStringSubmatch(string(deployed(t, "Dockerfile")), -1) {
		env[pair[1]] = pair[2]
	}
	return env
}

// parsed is what helio makes of a command line and an environment: it must know every variable.
func parsed(t *testing.T, args []string, env map[string]string) (c cli) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "HELIO_") {
			t.Setenv(name, value) // puts it back at the end
			_ = os.Unsetenv(name)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	parser, err := newParser(&c)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, flag := range flags(parser.Model.Node) {
		for _, name := range flag.Envs {
			known[name] = true
		}
	}
	for name := range env {
		if !known[name] {
			t.Errorf("%v: no flag reads %s; the nearest is %s", args, name, nearest(name, known))
		}
	}
	if _, err := parser.Parse(args); err != nil {
		t.Errorf("helio %s: %v", strings.Join(args, " "), err)
	}
	return c
}

// ports are the UDP port that a role listens on, if it does, and that of its admin server.
func ports(t *testing.T, role string, c cli) (udp, admin string) {
	t.Helper()
	port := func(addr string) string {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host != "0.0.0.0" {
			t.Errorf("%s: nobody outside the container reaches %q", role, addr)
		}
		return port
	}
	switch role {
	case "edge":
		return port(c.Edge.Listen), port(c.Edge.Admin)
	case "delivery":
		return port(c.Delivery.Listen), port(c.Delivery.Admin)
	case "projector":
		return "", port(c.Projector.Admin)
	}
	t.Fatalf("%s is no role", role)
	return "", ""
}

var pinned = regexp.MustCompile(`^[a-z0-9./-]+:\d+(\.\d+)*(-[a-z]+)?$`)

// lastsToStop is the longest that a role may take to end: its group's drain and hard stop (run.Config) and the release
// of what it holds.
const lastsToStop = 20*time.Second + 5*time.Second + 15*time.Second

type composeService struct {
	Image       string
	Build       map[string]string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Restart     string
	Grace       string `yaml:"stop_grace_period"`
	Healthcheck struct {
		Test              []string
		Interval, Timeout string
		Retries           int
		Disable           bool
	}
	DependsOn map[string]struct{ Condition string } `yaml:"depends_on"`
	Ulimits   map[string]map[string]int
}

func TestComposeIsTrueToTheBinary(t *testing.T) {
	var file struct {
		Name     string
		Helio    composeService `yaml:"x-helio"`
		Services map[string]composeService
		Volumes  map[string]any
	}
	strict(t, deployed(t, "compose.yaml"), &file)
	// Where the engines listen, inside.
	listens := map[string]bool{"postgres:5432": true, "clickhouse:9000": true, "clickhouse:8123": true}
	for _, l := range strings.Split(file.Services["kafka"].Environment["KAFKA_ADVERTISED_LISTENERS"], ",") {
		_, addr, _ := strings.Cut(l, "://")
		listens[addr] = true
	}
	if d, ok := file.Services["delivery"]; ok {
		listens[parsed(t, d.Command, nil).Delivery.Advertise] = true
	}
	reach := func(t *testing.T, addr string) {
		t.Helper()
		if !listens[addr] {
			t.Errorf("nothing listens at %s", addr)
		}
	}
	roles := map[string]bool{}
	makesLog := false
	for name, s := range file.Services {
		t.Run(name, func(t *testing.T) {
			for dep, on := range s.DependsOn {
				other, found := file.Services[dep]
				switch {
				case !found:
					t.Errorf("it depends on %s, which is not there", dep)
				case on.Condition == "service_healthy" &&
					(len(other.Healthcheck.Test) == 0 || other.Healthcheck.Disable):
					t.Errorf("it waits for the health of %s, which has no check", dep)
				}
			}
			for _, v := range s.Volumes {
				volume, _, _ := strings.Cut(v, ":")
				if _, found := file.Volumes[volume]; !found {
					t.Errorf("the volume %s is not declared", volume)
				}
			}
			for _, p := range s.Ports {
				if !strings.HasPrefix(p, "127.0.0.1:") {
					t.Errorf("port %s is open to the network", p)
				}
			}
			if s.Build == nil {
				if !pinned.MatchString(s.Image) {
					t.Errorf("the image %s has no version", s.Image)
				}
				return
			}
			recipe := filepath.Join("..", "..", "infra", "deploy", s.Build["context"], s.Build["dockerfile"])
			if _, err := os.Stat(recipe); err != nil {
				t.Error(err)
			}
			env := imageEnv(t)
			maps.Copy(env, s.Environment)
			c := parsed(t, s.Command, env)
			if s.Command[0] == "init" {
				reach(t, env["HELIO_KAFKA"])
				if c.Init.Partitions < 1 || c.Init.Replicas != 1 || s.Restart != "no" {
					t.Errorf("the log is made with %+v, restart %s", c.Init, s.Restart)
				}
				makesLog = true
				return
			}
			if s.DependsOn["init"].Condition != "service_completed_successfully" &&
				!slices.Contains([]string{"secrets", "edge"}, s.Command[0]) { // an edge waits for a projector
				t.Error("it may start before there is a log")
			}
			if s.Command[0] == "secrets" {
				if c.Secrets.Secrets != "/secrets" || !slices.Contains(s.Volumes, "secrets:/secrets") ||
					c.Secrets.Delivery != "/links" || !slices.Contains(s.Volumes, "links:/links") {
					t.Errorf("secrets are made in %s and %s, with the volumes %v",
						c.Secrets.Secrets, c.Secrets.Delivery, s.Volumes)
				}
				return
			}
			// Only edges get user.key, and who has no links gets nothing.
			for _, v := range s.Volumes {
				from, to, _ := strings.Cut(v, ":")
				want := map[string]string{"edge": "secrets", "delivery": "links"}[s.Command[0]]
				if to == "/secrets" && from != want {
					t.Errorf("its secrets are %s, and should be %q", from, want)
				}
			}
			if (s.Command[0] != "projector") != slices.ContainsFunc(s.Volumes, func(v string) bool {
				return strings.HasSuffix(v, ":"+env["HELIO_SECRETS"])
			}) {
				t.Errorf("its volumes are %v", s.Volumes)
			}
			udp, admin := ports(t, s.Command[0], c)
			if url := s.Healthcheck.Test[len(s.Healthcheck.Test)-1]; url != "http://127.0.0.1:"+admin+"/readyz" {
				t.Errorf("health is asked for at %s", url)
			}
			for _, p := range s.Ports {
				inside := p[strings.LastIndexByte(p, ':')+1:]
				if inside != udp+"/udp" && inside != admin {
					t.Errorf("port %s is published, but nothing listens at %s", p, inside)
				}
			}
			if d, err := time.ParseDuration(s.Grace); err != nil || d <= lastsToStop {
				t.Errorf("it is killed after %s, and may take %s", s.Grace, lastsToStop)
			}
			reach(t, env["HELIO_KAFKA"])
			reach(t, env["HELIO_CLICKHOUSE"])
			u, err := url.Parse(env["HELIO_POSTGRES"])
			if err != nil {
				t.Fatal(err)
			}
			reach(t, u.Host)
			db := file.Services["postgres"].Environment
			password, _ := u.User.Password()
			if u.User.Username() != db["POSTGRES_USER"] || password != db["POSTGRES_PASSWORD"] ||
				u.Path != "/"+db["POSTGRES_DB"] {
				t.Errorf("Postgres knows nobody of %s", u.Redacted())
			}
			if ch := file.Services["clickhouse"].Environment; env["HELIO_CLICKHOUSE_USER"] != ch["CLICKHOUSE_USER"] ||
				env["HELIO_CLICKHOUSE_PASSWORD"] != ch["CLICKHOUSE_PASSWORD"] {
				t.Error("ClickHouse knows another user")
			}
			roles[s.Command[0]+c.Projector.Store] = true
		})
	}
	if !makesLog {
		t.Error("nobody makes the log")
	}
	want := []string{"delivery", "edge", "projectorclickhouse", "projectorpostgres"}
	if got := slices.Sorted(maps.Keys(roles)); !slices.Equal(got, want) {
		t.Errorf("roles %v, want %v", got, want)
	}
}

// The manifests, as far as helio uses them: a key that is not here is an error.
type (
	manifest struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		Data       map[string]string
		Spec       struct {
			// of a workload
			ServiceName         string `yaml:"serviceName"`
			Replicas            int
			BackoffLimit        int    `yaml:"backoffLimit"`
			TTL                 int    `yaml:"ttlSecondsAfterFinished"`
			PodManagementPolicy string `yaml:"podManagementPolicy"`
			Strategy            map[string]map[string]int
			Template            struct {
				Metadata struct{ Labels, Annotations map[string]string }
				Spec     struct {
					Restart    string           `yaml:"restartPolicy"`
					Grace      int              `yaml:"terminationGracePeriodSeconds"`
					Token      *bool            `yaml:"automountServiceAccountToken"`
					Security   *securityContext `yaml:"securityContext"`
					Containers []container
					Volumes    []struct {
						Name   string
						Secret struct {
							Name string `yaml:"secretName"`
							Mode int    `yaml:"defaultMode"`
						}
					}
				}
			}
			// of a service
			Type                     string
			ClusterIP                string `yaml:"clusterIP"`
			PublishNotReadyAddresses bool   `yaml:"publishNotReadyAddresses"`
			ExternalTrafficPolicy    string `yaml:"externalTrafficPolicy"`
			Ports                    []struct {
				Name, Protocol string
				Port           int
				TargetPort     string `yaml:"targetPort"`
			}
			// of both, and of a budget
			Selector map[string]any
			// of a budget
			MaxUnavailable int `yaml:"maxUnavailable"`
			// of a policy
			PodSelector selector `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []struct {
				From []struct {
					NamespaceSelector *selector `yaml:"namespaceSelector"`
					PodSelector       *selector `yaml:"podSelector"`
				}
				Ports []struct{ Protocol, Port string }
			}
		}
	}
	selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	}
	securityContext struct {
		// of a pod
		NonRoot bool                  `yaml:"runAsNonRoot"`
		User    int                   `yaml:"runAsUser"`
		Group   int                   `yaml:"runAsGroup"`
		FSGroup int                   `yaml:"fsGroup"`
		Seccomp struct{ Type string } `yaml:"seccompProfile"`
		// of a container
		Escalation   *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnly     bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities struct{ Drop []string }
	}
	container struct {
		Name, Image string
		Args        []string
		EnvFrom     []struct {
			ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
		} `yaml:"envFrom"`
		Env []struct {
			Name      string
			ValueFrom struct {
				FieldRef struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
				SecretKeyRef struct {
					Name, Key string
					Optional  bool
				} `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
			Protocol      string
		}
		Security     *securityContext `yaml:"securityContext"`
		Startup      probe            `yaml:"startupProbe"`
		Readiness    probe            `yaml:"readinessProbe"`
		Liveness     probe            `yaml:"livenessProbe"`
		Resources    map[string]map[string]string
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	probe struct {
		HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
		Period  int                         `yaml:"periodSeconds"`
		Timeout int                         `yaml:"timeoutSeconds"`
		Failure int                         `yaml:"failureThreshold"`
	}
)

func TestKubernetesIsTrueToTheBinary(t *testing.T) {
	text := deployed(t, "kubernetes.yaml")
	var all []manifest
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	for {
		var m manifest
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	config := map[string]map[string]string{}
	services, budgets, policies := map[string]manifest{}, map[string]manifest{}, map[string]manifest{}
	for _, m := range all {
		switch m.Kind {
		case "PodDisruptionBudget":
			budgets[fmt.Sprint(m.Spec.Selector["matchLabels"])] = m
		case "NetworkPolicy":
			policies[fmt.Sprint(m.Spec.PodSelector.MatchLabels)] = m
		case "ConfigMap":
			config[m.Metadata.Name] = m.Data
		case "Service":
			services[m.Metadata.Name] = m
		case "Secret":
			t.Errorf("the secret %s is in the file", m.Metadata.Name)
		}
	}
	roles := map[string]bool{}
	served := map[string]bool{}
	makesLog := false
	for _, m := range all {
		if m.Kind == "Job" {
			pod := m.Spec.Template
			c := pod.Spec.Containers[0]
			env := imageEnv(t)
			maps.Copy(env, config[c.EnvFrom[0].ConfigMapRef.Name])
			for _, e := range c.Env {
				env[e.Name] = "secret"
			}
			job := parsed(t, c.Args, env).Init
			hardened(t, pod.Spec.Security, c.Security, pod.Spec.Token)
			if c.Args[0] != "init" || job.Partitions < 1 || job.Replicas != 3 || job.KafkaPassword == "" ||
				m.Spec.TTL == 0 || pod.Spec.Restart != "OnFailure" || !pinned.MatchString(c.Image) {
				t.Errorf("the log is made with %+v, by %+v", job, m.Spec)
			}
			makesLog = true
		}
		if m.Kind != "Deployment" && m.Kind != "StatefulSet" {
			continue
		}
		t.Run(m.Metadata.Name, func(t *testing.T) {
			pod := m.Spec.Template
			c := pod.Spec.Containers[0]
			env := imageEnv(t)
			for _, from := range c.EnvFrom {
				if config[from.ConfigMapRef.Name] == nil {
					t.Errorf("no ConfigMap %s", from.ConfigMapRef.Name)
				}
				maps.Copy(env, config[from.ConfigMapRef.Name])
			}
			for _, e := range c.Env {
				secret := e.ValueFrom.SecretKeyRef
				switch {
				case e.ValueFrom.FieldRef.FieldPath == "metadata.name":
					env[e.Name] = m.Metadata.Name + "-0"
				case secret.Name != "" && bytes.Contains(text, []byte("--from-literal="+secret.Key+"=")):
					env[e.Name] = "https://example.org"
				default:
					t.Errorf("%s comes from nowhere, or the file does not say how its secret is made", e.Name)
				}
			}
			args := slices.Clone(c.Args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "$(HELIO_NAME)", env["HELIO_NAME"])
			}
			parsedCLI := parsed(t, args, env)
			role := args[0]
			udp, admin := ports(t, role, parsedCLI)
			open := map[string]string{}
			for _, p := range c.Ports {
				want := map[string]string{"": admin, "UDP": udp}[p.Protocol]
				if strconv.Itoa(p.ContainerPort) != want {
					t.Errorf("port %s is %d %s, and helio listens at %s", p.Name, p.ContainerPort, p.Protocol, want)
				}
				open[p.Name] = p.Protocol
			}
			for what, p := range map[string]probe{
				"readiness /readyz": c.Readiness, "liveness /livez": c.Liveness, "startup /livez": c.Startup,
			} {
				_, want, _ := strings.Cut(what, " ")
				if path, _, _ := strings.Cut(p.HTTPGet.Path, "?"); path != want || p.HTTPGet.Port != "admin" {
					t.Errorf("%s is asked for at %s of port %s", what, p.HTTPGet.Path, p.HTTPGet.Port)
				}
			}
			hardened(t, pod.Spec.Security, c.Security, pod.Spec.Token)
			if b, found := budgets[fmt.Sprint(pod.Metadata.Labels)]; !found || b.Spec.MaxUnavailable < 1 ||
				b.Spec.MaxUnavailable >= m.Spec.Replicas {
				t.Errorf("of %d pods a drain of nodes may take %d at once", m.Spec.Replicas, b.Spec.MaxUnavailable)
			}
			// Who gets in where: monitoring at the admin port, edges at the links, everybody at QUIC.
			var doors []string
			for _, in := range policies[fmt.Sprint(pod.Metadata.Labels)].Spec.Ingress {
				from := "everybody"
				for _, f := range in.From {
					switch {
					case f.PodSelector != nil && f.NamespaceSelector == nil:
						from = f.PodSelector.MatchLabels["app"]
					case f.NamespaceSelector != nil && f.PodSelector == nil:
						from = f.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
					}
				}
				for _, p := range in.Ports {
					if protocol, found := open[p.Port]; !found || protocol != p.Protocol {
						t.Errorf("the policy opens %s %s, which is no port", p.Port, p.Protocol)
					}
					doors = append(doors, from+" "+p.Port)
				}
			}
			want := map[string][]string{
				"projector": {"monitoring admin"}, "delivery": {"monitoring admin", "helio-edge links"},
				"edge": {"monitoring admin", "everybody quic"},
			}[role]
			if !slices.Equal(doors, want) || len(doors) != len(c.Ports) {
				t.Errorf("the policy lets in %v, want %v", doors, want)
			}
			for name := range env {
				if name == "HELIO_PPROF" {
					t.Error("profiles are on")
				}
			}
			if pod.Metadata.Annotations["prometheus.io/port"] != admin {
				t.Errorf("metrics are scraped at %s", pod.Metadata.Annotations["prometheus.io/port"])
			}
			if grace := time.Duration(pod.Spec.Grace) * time.Second; grace <= lastsToStop {
				t.Errorf("it is killed after %s, and may take %s", grace, lastsToStop)
			}
			if !pinned.MatchString(c.Image) {
				t.Errorf("the image %s has no version", c.Image)
			}
			if got := fmt.Sprint(m.Spec.Selector["matchLabels"]); got != fmt.Sprint(pod.Metadata.Labels) {
				t.Errorf("it selects %s and has %v", got, pod.Metadata.Labels)
			}
			// Static members of groups need names that stay.
			if (role != "edge") != (m.Kind == "StatefulSet") || env["HELIO_NAME"] == "" {
				t.Errorf("a %s named %q is a %s", role, env["HELIO_NAME"], m.Kind)
			}
			for name, s := range services {
				if fmt.Sprint(s.Spec.Selector) != fmt.Sprint(pod.Metadata.Labels) {
					continue
				}
				served[name] = true
				for _, p := range s.Spec.Ports {
					if protocol, found := open[p.TargetPort]; !found || protocol != p.Protocol {
						t.Errorf("the service %s leads to %s %s", name, p.TargetPort, p.Protocol)
					}
				}
			}
			if role == "delivery" {
				host, port, err := net.SplitHostPort(parsedCLI.Delivery.Advertise)
				if err != nil || host != env["HELIO_NAME"]+"."+m.Spec.ServiceName || port != udp ||
					services[m.Spec.ServiceName].Spec.ClusterIP != "None" {
					t.Errorf("edges are told %s", parsedCLI.Delivery.Advertise)
				}
			}
			if role != "projector" &&
				(len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != env["HELIO_SECRETS"] ||
					!bytes.Contains(text, []byte("create secret generic "+
						pod.Spec.Volumes[0].Secret.Name+" --from-file"))) {
				t.Errorf("its secrets are not where it looks: %v", c.VolumeMounts)
			}
			if role != "projector" {
				v := pod.Spec.Volumes[0].Secret
				want := map[string]string{"edge": "helio-secrets", "delivery": "helio-links"}[role]
				if v.Name != want || v.Mode != 0o440 {
					t.Errorf("it gets the secret %s with mode %o, want %s and 440", v.Name, v.Mode, want)
				}
			} else if len(c.VolumeMounts) > 0 {
				t.Error("a projector needs no secrets")
			}
			roles[role+parsedCLI.Projector.Store] = true
		})
	}
	want := []string{"delivery", "edge", "projectorclickhouse", "projectorpostgres"}
	if got := slices.Sorted(maps.Keys(roles)); !slices.Equal(got, want) {
		t.Errorf("roles %v, want %v", got, want)
	}
	if !makesLog {
		t.Error("nobody makes the log")
	}
	if len(served) != len(services) {
		t.Errorf("services %v, and pods for %v", slices.Sorted(maps.Keys(services)), slices.Sorted(maps.Keys(served)))
	}
}

// hardened checks that a pod runs as the image's user, and may do no more than that.
func hardened(t *testing.T, pod, own *securityContext, token *bool) {
	t.Helper()
	user := regexp.MustCompile(`(?m)^USER (\d+):(\d+)$`).FindSubmatch(deployed(t, "Dockerfile"))
	if user == nil || pod == nil || own == nil {
		t.Fatalf("the image runs as %s, the pod as %+v, the container as %+v", user, pod, own)
	}
	if !pod.NonRoot || strconv.Itoa(pod.User) != string(user[1]) || strconv.Itoa(pod.Group) != string(user[2]) ||
		pod.FSGroup != pod.Group || pod.Seccomp.Type != "RuntimeDefault" {
		t.Errorf("the pod runs as %+v, the image as %s", pod, user[0])
	}
	if own.Escalation == nil || *own.Escalation || !own.ReadOnly ||
		!slices.Equal(own.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("the container may do more than it needs: %+v", own)
	}
	if token == nil || *token {
		t.Error("it gets a token for the API server")
	}
}

// The image has no C library: what its build makes must need none.
func TestImageIsStatic(t *testing.T) {
	m := regexp.MustCompile(`RUN CGO_ENABLED=0 (go build .*) -o /helio (\S+)`).FindSubmatch(deployed(t, "Dockerfile"))
	if m == nil {
		t.Fatal("the Dockerfile has no build")
	}
	out := filepath.Join(t.TempDir(), "helio")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", string(m[1])+` -o "$OUT" `+string(m[2]))
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "OUT="+out)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	f, err := elf.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		t.Errorf("it needs %v, %v", libs, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("it needs a dynamic linker")
		}
	}
	b, err := exec.CommandContext(t.Context(), out, "edge", "--help").CombinedOutput()
	if err != nil || !bytes.Contains(b, []byte("HELIO_KAFKA")) {
		t.Errorf("%v\n%s", err, b)
	}
}
