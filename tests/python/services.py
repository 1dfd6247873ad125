"""gRPC services as another language's client sees them: messages made from what reflection tells."""

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Services:
    """Calls methods by their full name."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None):
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)

    def names(self) -> set[str]:
        return set(self.database.get_services())

    def message(self, name: str) -> type:
        """A message's class."""
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    def start(self, service: str, method: str, request, **how):
        """Calls; `request` is the bytes of a message, or its fields."""
        described = self.pool.FindServiceByName(service).methods_by_name[method]
        if isinstance(request, dict):
            request = GetMessageClass(described.input_type)(**request).SerializeToString()
        call = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        made = call(
            f"/{service}/{method}",
            request_serializer=bytes,
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        return made(request, timeout=60, **how)

    def call(self, service: str, method: str, **fields) -> list:
        """All messages of the answer."""
        answered = self.start(service, method, fields)
        described = self.pool.FindServiceByName(service).methods_by_name[method]
        return list(answered) if described.server_streaming else [answered]
