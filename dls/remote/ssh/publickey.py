"""The method `publickey`: reads the keys that there are, and offers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dls.errors import LoginError
from dls.remote.ssh.agent import Agent, AgentError, AgentKey, agent_places
from dls.remote.ssh.dialogue import Dialogue
from dls.remote.ssh.exceptions import NeedsOpenSsh
from dls.remote.ssh.key_files import KeyFile, read_key_file, sign, unlock
from dls.remote.ssh.keys import Candidate, KeyRing, certificates_in, choose_algorithm
from dls.remote.ssh.openssh_config import is_there
from dls.remote.ssh.prompts import CannotAsk, Question, QuestionKind
from dls.remote.ssh.public_keys import rsa_bits
from dls.remote.ssh.transport import HostTransport
from dls.remote.ssh.userauth import Failure, PublicKeyOk, Reply, Success, UserAuth


class PublicKeys:
    """Offers the keys; a host that wants two of them gets the second one from a second call of `attempt`."""

    def __init__(
        self, dialogue: Dialogue, userauth: UserAuth, transport: HostTransport, *, may_use_openssh: bool
    ) -> None:
        self._dialogue = dialogue
        self._target = dialogue.target
        self._userauth = userauth
        self._transport = transport
        self._may_use_openssh = may_use_openssh
        self._agents: list[Agent] = []
        self._candidates: Iterator[Candidate] | None = None
        self.unanswered: LoginError | None = None
        """Why the passphrase of a key that the host would accept could not be asked for."""
        self.accepted = ""
        """The key that the host accepted last, in words."""

    def close(self) -> None:
        """Close the connections to agents."""
        for agent in self._agents:
            agent.close()

    def attempt(self) -> Reply | None:
        """Offer keys until one is accepted; None when there is none left, or the host takes no more keys."""
        if self._candidates is None:
            self._candidates = iter(self._key_ring().candidates())
        for candidate in self._candidates:
            self._dialogue.checking = candidate.name
            reply = self._offer(candidate)
            self._dialogue.checking = ""
            if isinstance(reply, Success) or (isinstance(reply, Failure) and reply.partial):
                self._dialogue.record(candidate.name, "accepted")
                self.accepted = candidate.name
                return reply
            if isinstance(reply, Failure):
                self._dialogue.record(candidate.name)
                if "publickey" not in reply.methods:
                    return None
        return None

    def _offer(self, candidate: Candidate) -> Reply | None:
        """Offer one key and log in with it; None when it can't be used, which was said."""
        if candidate.public is None:
            assert candidate.file is not None  # it has to be unlocked to know what to offer
            file = self._unlock(candidate.file)
            return None if file is None else self._log_in(replace(candidate, public=file.public, file=file))
        if candidate.agent_key is None and not candidate.is_locked and not candidate.needs_security_key:
            return self._log_in(candidate)  # a signature costs nobody anything: no need to ask first
        algorithm = self._algorithm(candidate)
        if algorithm is None:
            return None
        reply = self._userauth.offer(algorithm, candidate.public.blob)
        if not isinstance(reply, PublicKeyOk):
            return reply
        if candidate.needs_security_key:
            self._need_openssh(candidate)
            return None
        if candidate.is_locked:
            assert candidate.file is not None
            file = self._unlock(candidate.file)
            return None if file is None else self._log_in(replace(candidate, file=file))
        return self._log_in(candidate)

    def _need_openssh(self, candidate: Candidate) -> None:
        if self._may_use_openssh:
            raise NeedsOpenSsh(self._target, candidate.name.replace("the key", "the security key"))
        self._pass_over(candidate.name, "only an SSH agent or OpenSSH's ssh can use a security key")

    def _algorithm(self, candidate: Candidate) -> str | None:
        assert candidate.public is not None
        kind, bits, least = candidate.public.kind, rsa_bits(candidate.public), self._target.required_rsa_bits
        if 0 < bits < least:
            self._dialogue.record(candidate.name, f"not offered: RequiredRSASize is {least}, and it has {bits} bits")
            return None
        accepted = self._target.algorithms.public_keys
        algorithm = choose_algorithm(kind, accepted, self._transport.signature_algorithms)
        if algorithm is None:
            self._dialogue.record(candidate.name, f"not offered: {kind} is not among the accepted algorithms")
        return algorithm

    def _log_in(self, candidate: Candidate) -> Reply | None:
        algorithm = self._algorithm(candidate)
        if algorithm is None or candidate.public is None:
            return None
        for make_signature in self._signers(candidate, algorithm):
            try:
                return self._userauth.sign(algorithm, candidate.public.blob, make_signature)
            except AgentError as error:
                self._pass_over(candidate.name, str(error))
        return None

    def _signers(self, candidate: Candidate, algorithm: str) -> Iterator[Callable[[bytes], bytes]]:
        """Yield what can sign: the agent, and the file if it needs no passphrase."""
        key = candidate.agent_key
        file = candidate.file
        if key is not None:
            yield lambda data: key.sign(algorithm, data, lambda: self._tell_slow(candidate.name))
        if file is not None and (private := file.private) is not None:
            yield lambda data: sign(private, algorithm, data)

    def _tell_slow(self, name: str) -> None:
        self._dialogue.tell(f"The SSH agent waits for you: confirm there that {name} may be used, or touch its device.")

    def _unlock(self, file: KeyFile) -> KeyFile | None:
        """Ask for the passphrase of a key; None when it is not given, which was said."""
        name = f"the key {file.path.name}"
        question = Question(QuestionKind.PASSPHRASE, str(file.path), f"Passphrase of the key {file.path}: ")
        for _ in range(self._target.password_prompts):
            try:
                passphrase = self._dialogue.ask(question)
            except CannotAsk as error:  # another method may need no question
                self.unanswered = error
                self._dialogue.record(name, "its passphrase could not be asked for")
                return None
            if not passphrase:
                break
            try:
                unlocked = unlock(file, passphrase)
            except ValueError as error:
                self._pass_over(name, str(error))
                return None
            if unlocked is not None:
                self._tell_of_agent(file)
                return unlocked
            self._dialogue.tell(f"That is not the passphrase of the key {file.path}.")
        self._dialogue.record(name, "not unlocked")
        return None

    def _tell_of_agent(self, file: KeyFile) -> None:
        """Say that the unlocked key is not added to the agent, where there is one and the configuration wants that."""
        if self._target.adds_keys_to_agent and self._agents:
            self._dialogue.tell(
                f"dls does not follow AddKeysToAgent; after `ssh-add {file.path}` the passphrase is asked for no more."
            )

    def _pass_over(self, name: str, why: str) -> None:
        self._dialogue.tell(f"{name[:1].upper()}{name[1:]} was passed over: {why}.")
        self._dialogue.record(name, why)

    def _key_ring(self) -> KeyRing:
        target = self._target
        agent_keys = [key for place in agent_places(target.identity_agent) for key in self._agent_keys(place)]
        files = [read_key_file(path) for path in target.identities if is_there(path)]
        held = {key.public for key in agent_keys}
        for file in files:
            if file.problem:
                self._pass_over(f"the key {file.path}", file.problem)
            elif not file.can_sign and not file.is_handle and file.public not in held:
                self._pass_over(f"the key {file.path}", "it is a public key, and no SSH agent has its private half")
        beside = [Path(f"{path}-cert.pub") for path in target.identities]
        paths = target.certificates or tuple(path for path in beside if is_there(path))
        certificates, problems = certificates_in(paths)
        for path, why in problems.items():
            self._pass_over(f"the certificate {path}", why)
        return KeyRing(
            [file for file in files if not file.problem], agent_keys, certificates, target.named_identities,
            target.identities_only, bool(target.certificates),
        )  # fmt: skip

    def _agent_keys(self, place: str) -> list[AgentKey]:
        agent = Agent(place)
        try:
            agent.connect()
        except AgentError as error:
            # What SSH_AUTH_SOCK names is often gone; on Windows two places are looked at, and mostly nothing is there.
            if self._target.identity_agent != "SSH_AUTH_SOCK" or agent.is_silent:
                self._pass_over(f"the SSH agent {place}", str(error))
            return []
        self._agents.append(agent)
        try:
            if self._transport.host_proof is not None:
                host_key, signature = self._transport.host_proof
                agent.bind(host_key, self._transport.session_id or b"", signature)
            return agent.keys()
        except AgentError as error:
            self._pass_over(f"the SSH agent {place}", str(error))
            return []
