{{/* Names and labels. */}}
{{- define "muster.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "muster.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "muster.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "muster.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "muster.selector" -}}
app.kubernetes.io/name: {{ include "muster.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "muster.labels" -}}
{{ include "muster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "muster.image" -}}
{{- $image := .Values.image -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "muster.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "muster.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What runs in each mode: the one table that every template loops over. A relay is one pod: tickets mean it by its name. The
nodes of the hash table stand in one pod too, at addresses that stay. */}}
{{- define "muster.components" -}}
{{- $it := .Values.components -}}
{{- $dht := list 27441 27442 27443 -}}
{{- $relay := list 27451 -}}
components:
{{- if eq .Values.mode "all" }}
  - {name: master, targets: [all], services: [auth, topology, dht-bootstrap, gsn-registry, relay], udp: {{ toJson (concat $dht $relay) }}, replicas: 1, stateful: true, shared: false, secret: true, resources: {{ toJson $it.master.resources }}}
{{- else }}
{{- if eq .Values.mode "replicas" }}
  - {name: master, targets: [auth, topology, gsn-registry], services: [auth, topology, gsn-registry], udp: [], replicas: {{ $it.master.replicas }}, stateful: false, shared: true, secret: true, resources: {{ toJson $it.master.resources }}}
{{- else }}
  - {name: auth, targets: [auth], services: [auth], udp: [], replicas: {{ $it.auth.replicas }}, stateful: false, shared: true, secret: true, resources: {{ toJson $it.auth.resources }}}
  - {name: topology, targets: [topology], services: [topology], udp: [], replicas: {{ $it.topology.replicas }}, stateful: false, shared: true, secret: false, resources: {{ toJson $it.topology.resources }}}
  - {name: gsn-registry, targets: [gsn-registry], services: [gsn-registry], udp: [], replicas: {{ index $it "gsn-registry" "replicas" }}, stateful: false, shared: true, secret: false, resources: {{ toJson (index $it "gsn-registry" "resources") }}}
{{- end }}
  - {name: dht-bootstrap, targets: [dht-bootstrap], services: [dht-bootstrap], udp: {{ toJson $dht }}, replicas: 1, stateful: false, shared: false, secret: false, resources: {{ toJson (index $it "dht-bootstrap" "resources") }}}
{{- range $at, $address := $it.relay.addresses }}
  - {name: relay-{{ $at }}, targets: [relay], services: [relay], udp: {{ toJson $relay }}, address: {{ $address | quote }}, replicas: 1, stateful: false, shared: false, secret: false, resources: {{ toJson $it.relay.resources }}}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The component that auth runs in. */}}
{{- define "muster.authority" -}}
{{- include "muster.fullname" . }}-{{ ternary "auth" "master" (eq .Values.mode "split") -}}
{{- end -}}

{{/* Pod Security "restricted", and a root file system that nobody writes. */}}
{{- define "muster.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "muster.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The environment that every process of the master has. Its folder is one below the volume's: a volume's own is open to
the group, and cannot be closed by whoever only writes into it. */}}
{{- define "muster.env" -}}
- {name: MUSTER_DATA_DIR, value: /var/lib/muster/data}
- {name: MUSTER_OBSERVE, value: "[::]:27432"}
- {name: MUSTER_ADDRESS, value: {{ join "," .Values.addresses | quote }}}
- {name: MUSTER_LOG, value: {{ .Values.log.filter | quote }}}
- {name: MUSTER_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
{{- with .Values.discoveryDomain }}
- {name: MUSTER_DISCOVERY_DOMAIN, value: {{ . | quote }}}
{{- end }}
{{- with .Values.traces.endpoint }}
- {name: MUSTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if or .Values.behindProxy .Values.gateway.tlsRoute.enabled }}
- {name: MUSTER_BEHIND_PROXY, value: "true"}
{{- end }}
{{- if ne .Values.mode "all" }}
- name: MUSTER_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.key }}}}
- name: MUSTER_NATS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.nats.existingSecret }}, key: {{ .Values.nats.key }}}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of pods that hold the authority's keys. */}}
{{- define "muster.secretEnv" -}}
{{- if .Values.authority.existingSecret }}
- {name: MUSTER_SECRET_FILE, value: /etc/muster/authority/secret}
{{- end }}
{{- with .Values.authority.token }}
{{- if .module }}
- {name: MUSTER_PKCS11_MODULE, value: {{ .module | quote }}}
- {name: MUSTER_PKCS11_TOKEN, value: {{ .label | quote }}}
- {name: MUSTER_PKCS11_PIN_FILE, value: /etc/muster/token/pin}
{{- end }}
{{- end }}
{{- end -}}

{{- define "muster.secretMount" -}}
{{- if .Values.authority.existingSecret }}
- {name: authority, mountPath: /etc/muster/authority, readOnly: true}
{{- end }}
{{- if .Values.authority.token.module }}
- {name: token, mountPath: /etc/muster/token, readOnly: true}
{{- end }}
{{- end -}}

{{- define "muster.secretVolume" -}}
{{- if .Values.authority.existingSecret }}
- name: authority
  secret:
    secretName: {{ .Values.authority.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.authority.key }}, path: secret}]
{{- end }}
{{- with .Values.authority.token }}
{{- if .module }}
- name: token
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: pin}]
{{- end }}
{{- end }}
{{- end -}}

{{- define "muster.peers" -}}
{{- range . }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end -}}
