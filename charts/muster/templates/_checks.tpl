{{/* What the schema cannot say: combinations that do not work, each with a sentence. */}}
{{- define "muster.checks" -}}
{{- $shared := ne .Values.mode "all" -}}
{{- if not .Values.addresses -}}
{{- fail "addresses is empty: say how devices reach the master, as in --set addresses={muster.example.org:27431}" -}}
{{- end -}}
{{- if and $shared (not .Values.database.existingSecret) -}}
{{- fail (printf "mode %q needs PostgreSQL: put its URL into a secret and name it in database.existingSecret" .Values.mode) -}}
{{- end -}}
{{- if and $shared (not .Values.nats.existingSecret) -}}
{{- fail (printf "mode %q needs NATS, by which replicas wake each other: put its URL into a secret and name it in nats.existingSecret" .Values.mode) -}}
{{- end -}}
{{- if and $shared (not .Values.authority.existingSecret) -}}
{{- fail (printf "mode %q needs the authority's secret, which its replicas share: kubectl create secret generic muster-authority --from-literal=secret=$(openssl rand -hex 32), and name it in authority.existingSecret" .Values.mode) -}}
{{- end -}}
{{- with .Values.authority.token -}}
{{- if ne (not .module) (not (and .label .existingSecret)) -}}
{{- fail "a token takes three: authority.token.module, its label, and the secret with its PIN in authority.token.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- if and (not $shared) .Values.database.existingSecret -}}
{{- fail "mode \"all\" keeps its truth in SQLite, and database.existingSecret is set: choose mode \"replicas\", or leave it out" -}}
{{- end -}}
{{- if and (not $shared) .Values.nats.existingSecret -}}
{{- fail "mode \"all\" is one process, and nats.existingSecret is set: choose mode \"replicas\", or leave it out" -}}
{{- end -}}
{{- if and (not $shared) .Values.autoscaling.enabled -}}
{{- fail "mode \"all\" is one process on one volume and cannot be scaled: choose mode \"replicas\", or autoscaling.enabled=false" -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor would count everything twice: enable one" -}}
{{- end -}}
{{- range $route := list "tlsRoute" "udpRoute" -}}
{{- $it := index $.Values.gateway $route -}}
{{- if and $it.enabled (not $it.parentRefs) -}}
{{- fail (printf "gateway.%s needs a gateway: name it in gateway.%s.parentRefs" $route $route) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gateway.udpRoute.enabled (not .Values.udpService.enabled) -}}
{{- fail "gateway.udpRoute leads to the UDP service: set udpService.enabled=true too" -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: name an existing one" -}}
{{- end -}}
{{- if and .Values.persistence.existingClaim (not .Values.persistence.enabled) -}}
{{- fail "persistence.existingClaim is set and persistence.enabled is false: choose one" -}}
{{- end -}}
{{- range .Values.networkPolicy.devices -}}
{{- if and .ipBlock (or .podSelector .namespaceSelector) -}}
{{- fail "networkPolicy.devices: a peer has either ipBlock or selectors (Kubernetes refuses both)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
