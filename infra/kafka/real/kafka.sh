#!/usr/bin/env bash
# kafka.sh: one node of the real Apache Kafka (KRaft, broker and controller in one
# process) on 127.0.0.1, for tests and for trying things out. It needs Java 17 or newer
# and, the first time, Maven.
#
#   kafka.sh fetch [JARS]                   get the jars (does nothing when they are there)
#   kafka.sh start DATA PORT [CONTROLLER]   start in the background and wait until it listens
#   kafka.sh stop  DATA                     stop what start started, and wait for its end
#   kafka.sh run   DATA PORT [CONTROLLER]   the same in the foreground: the shell becomes the
#                                           broker, so a signal to this process reaches it
#
# DATA holds the log, the configuration and the notes of the process. PORT is for clients,
# CONTROLLER (PORT + 1 unless given) for Kafka itself. Where DATA/secure is a folder when
# DATA is first used, clients speak TLS and authenticate themselves with SASL. It holds
#   server.pem   the broker's key (PKCS #8) and certificate
#   ca.pem       who signs the clients' certificates, without which none is let in
#   user         one line, "NAME PASSWORD", for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512
#
# The jars lie in JARS, else in $HELIO_KAFKA_JARS, else in .helio/kafka of this checkout.
# $KAFKA_JVM_OPTS replaces the heap and collector settings.
set -eu

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=${HELIO_KAFKA_JARS:-$here/../../../.helio/kafka}
jvm=${KAFKA_JVM_OPTS:--Xmx512m -Xms128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto}

fail() {
	echo "kafka.sh: $1" >&2
	exit 1
}

need_java() {
	command -v java >/dev/null || fail "java is missing: install a Java 17 runtime (Debian: openjdk-17-jre-headless)"
}

# The copy of the pom beside the jars says what they are: a changed pom fetches anew.
fetch() {
	local dest=${1:-$jars}
	if cmp -s "$here/pom.xml" "$dest/pom.xml"; then
		return
	fi
	need_java
	command -v mvn >/dev/null || fail "mvn is missing: install Maven (Debian: maven), or copy the jars of pom.xml into $dest"
	mkdir -p "$dest" || fail "cannot create $dest"
	rm -f "$dest"/pom.xml "$dest"/*.jar
	mvn -q -B -ntp -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$(cd "$dest" && pwd)" >"$dest/mvn.log" 2>&1 ||
		fail "Maven could not fetch Kafka ($(grep -m1 ERROR "$dest/mvn.log" | cut -c1-200)): see $dest/mvn.log"
	ls "$dest"/kafka_*.jar >/dev/null 2>&1 || fail "Maven ended without error but left no kafka jar: see $dest/mvn.log"
	cp "$here/pom.xml" "$dest/pom.xml"
	echo "Apache Kafka ready in $dest ($(du -sh "$dest" | cut -f1))"
}

# secure DIR USER PASSWORD: prints the settings of a listener with TLS and SASL.
secure() {
	local plain=org.apache.kafka.common.security.plain.PlainLoginModule
	local scram=org.apache.kafka.common.security.scram.ScramLoginModule
	cat <<-END
		ssl.keystore.type=PEM
		ssl.keystore.location=$1/server.pem
		ssl.truststore.type=PEM
		ssl.truststore.location=$1/ca.pem
		# Without the listener's name it would be passed over: SASL counts as enough.
		listener.name.sasl_ssl.ssl.client.auth=required
		sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
		sasl.mechanism.inter.broker.protocol=PLAIN
		listener.name.sasl_ssl.plain.sasl.jaas.config=$plain required username="$2" password="$3" user_$2="$3";
		listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram required;
		listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$scram required;
	END
}

# prepare DATA PORT CONTROLLER: writes the configuration and formats the storage once.
prepare() {
	local data=$1 port=$2 controller=$3 listener=PLAINTEXT user='' password='' scram=()
	if [ -d "$data/secure" ]; then
		listener=SASL_SSL
		read -r user password <"$data/secure/user" || fail "$data/secure/user has no line NAME PASSWORD"
		scram=(--add-scram "SCRAM-SHA-256=[name=$user,password=$password]" --add-scram "SCRAM-SHA-512=[name=$user,password=$password]")
	fi
	cat >"$data/server.properties" <<-END
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$controller
		listeners=$listener://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
		advertised.listeners=$listener://127.0.0.1:$port
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=$listener
		listener.security.protocol.map=$listener:$listener,CONTROLLER:PLAINTEXT
		log.dirs=$data/log
		# What Heliograph asks of a production cluster.
		log.message.timestamp.type=LogAppendTime
		auto.create.topics.enable=false
		# One node has one replica of everything.
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=4
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=4
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		# Small and quick: no wait for further members, short sessions allowed, and a killed
		# broker may come back without waiting for its old registration to lapse.
		group.initial.rebalance.delay.ms=0
		group.min.session.timeout.ms=1000
		broker.heartbeat.interval.ms=500
		broker.session.timeout.ms=3000
		num.network.threads=2
		num.io.threads=4
		log.cleaner.dedupe.buffer.size=8388608
	END
	[ -z "$user" ] || secure "$data/secure" "$user" "$password" >>"$data/server.properties"
	if [ ! -f "$data/log/meta.properties" ]; then
		# The cluster id is 16 bytes in base64: "heliograph-tests".
		java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${options[@]}" kafka.tools.StorageTool \
			format -t aGVsaW9ncmFwaC10ZXN0cw -c "$data/server.properties" \
			"${scram[@]}" >"$data/format.log" 2>&1 ||
			fail "cannot format the storage in $data ($(tail -n1 "$data/format.log" | cut -c1-200))"
	fi
}

# setup DATA PORT [CONTROLLER]: all that comes before the broker itself; sets $data.
setup() {
	[ $# -ge 2 ] || fail "say kafka.sh start|run DATA PORT [CONTROLLER]"
	need_java
	fetch "$jars"
	mkdir -p "$1" || fail "cannot create $1"
	data=$(cd "$1" && pwd)
	options=("-Dlog4j2.configurationFile=$here/log4j2.properties" -cp "$jars/*")
	prepare "$data" "$2" "${3:-$(($2 + 1))}"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# alive DATA: the process noted there runs, and is a broker still (numbers are used again).
alive() {
	local pid
	pid=$(cat "$1/kafka.pid" 2>/dev/null) || return 1
	kill -0 "$pid" 2>/dev/null && { [ ! -r "/proc/$pid/cmdline" ] || grep -q kafka.Kafka "/proc/$pid/cmdline"; }
}

# shellcheck disable=SC2086 # $jvm is a list of options
case ${1:-} in
fetch)
	fetch "${2:-$jars}"
	;;
run)
	shift
	setup "$@"
	exec java $jvm "${options[@]}" kafka.Kafka "$data/server.properties"
	;;
start)
	shift
	[ $# -lt 1 ] || ! alive "$1" || fail "already running with process $(cat "$1/kafka.pid"): stop it first with kafka.sh stop $1"
	[ $# -lt 2 ] || ! listening "$2" || fail "port $2 is in use: choose another"
	setup "$@"
	nohup java $jvm "${options[@]}" kafka.Kafka "$data/server.properties" </dev/null >"$data/kafka.log" 2>&1 &
	echo $! >"$data/kafka.pid"
	for _ in $(seq 300); do
		if listening "$2"; then
			echo "Apache Kafka listens on 127.0.0.1:$2 (process $(cat "$data/kafka.pid"), log $data/kafka.log)"
			exit 0
		fi
		alive "$data" || break
		sleep 0.2
	done
	fail "the broker did not start ($(grep -m1 -E 'ERROR|FATAL|Exception' "$data/kafka.log" | cut -c1-200)): see $data/kafka.log"
	;;
stop)
	[ $# -ge 2 ] || fail "say kafka.sh stop DATA"
	if alive "$2"; then
		pid=$(cat "$2/kafka.pid")
		kill "$pid"
		for _ in $(seq 150); do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.2
		done
		! kill -9 "$pid" 2>/dev/null || echo "kafka.sh: it did not stop in 30 s and was killed" >&2
	fi
	rm -f "$2/kafka.pid"
	;;
*)
	sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
	exit 2
	;;
esac
